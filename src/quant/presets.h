// The recipes that are built in: the files of recipes/, embedded by CMake.
#pragma once

#include <span>
#include <string_view>

namespace blockptq {

struct Preset {
  std::string_view name;  ///< e.g. "w4a8c8"
  std::string_view text;  ///< JSON
};

std::span<const Preset> presets();

}  // namespace blockptq
