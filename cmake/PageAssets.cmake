# Embeds src/report/page.css and page.js into the library (src/report/page.h).
foreach(kind css js)
  set(file "${CMAKE_SOURCE_DIR}/src/report/page.${kind}")
  file(READ "${file}" page_${kind})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
endforeach()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/page_assets.cpp" @ONLY CONTENT [[
#include "report/page.h"

namespace blockptq {

std::string_view page_css() {
  return R"css(@page_css@)css";
}

std::string_view page_js() {
  return R"js(@page_js@)js";
}

}  // namespace blockptq
]])
