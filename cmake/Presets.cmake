# Embeds recipes/*.json into the library (src/quant/presets.h).
file(GLOB recipe_files CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/recipes/*.json")
set(preset_rows "")
foreach(file IN LISTS recipe_files)
  get_filename_component(name "${file}" NAME_WE)
  file(READ "${file}" text)
  string(APPEND preset_rows "    {\"${name}\", R\"json(${text})json\"},\n")
endforeach()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${recipe_files})
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/presets.cpp" @ONLY CONTENT [[
#include "quant/presets.h"

namespace blockptq {

std::span<const Preset> presets() {
  static constexpr Preset kPresets[] = {
@preset_rows@  };
  return kPresets;
}

}  // namespace blockptq
]])
