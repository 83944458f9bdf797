// Charts as inline SVG, coloured by the classes of page.css; numbers come from page_data.
#pragma once

#include <string>

#include "base/json.h"

namespace blockptq {

/// The relative error of every block, logarithmic; calibration and held-out text.
std::string error_curve(const Json& data);

/// Maps experts x blocks: tokens, error after, error after / before. One path for every colour, so
/// that 61 blocks x 256 experts stay small. Empty when no unit is an expert.
std::string heat_maps(const Json& data);

/// Bars, as high as their share of the largest; `title` for those who cannot see them.
std::string histogram(const Json& counts, const std::string& title);

}  // namespace blockptq
