// What became of one weight, for the journal and the page of the run: its error, and histograms of
// its values and codes.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

#include "base/json.h"
#include "quant/qtensor.h"
#include "quant/target_weight.h"

namespace blockptq {

/// {"name", "bits", "relative_error", "weight_histogram", "code_histogram"} of `weight`
/// and its integers q.
///
///   relative_error    sum (w - s q)^2 / sum w^2; 0 for a weight of zeros
///   weight_histogram  32 bins of w / (s q_max(bits)) over [-1.25, 1.25]; what lies beyond is in
///                     the outer bins
///   code_histogram    up to 4 bits: 16 bins, one per code from -8; else 32 bins from q_min(bits),
///                     2^(bits - 5) codes each
Json summarize_weight(std::string_view name, const TargetWeight& weight, const QTensor& q);

}  // namespace blockptq
