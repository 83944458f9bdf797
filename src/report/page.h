// The run as one self-contained HTML page: no network, inline styles, charts as SVG, a few lines of
// script that name the cell of a heat map under the pointer (docs/reports.md).
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace blockptq {

/// `data`: of page_data; embedded as JSON, and every number of the page carries its place in it.
std::string render_page(const Json& data);

/// page.css and page.js, embedded by the build.
std::string_view page_css();
std::string_view page_js();

}  // namespace blockptq
