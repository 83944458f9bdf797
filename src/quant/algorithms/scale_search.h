// Rounding to nearest under the scale that harms the output least: per output channel the factor c
// of quant/grid.h that minimises the activation-weighted squared error e H e^T, e = w - s Q(w / s),
// over evenly spaced factors from 1 down.
//
// Searching shrink factors by squared error is older than its use here; weighted by activations it
// is in AWQ (arXiv 2306.00978, 3.2) and llama.cpp (importance matrices, which are diag(H)).
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/algorithms/algorithm.h"
#include "quant/qtensor.h"
#include "quant/target_weight.h"

namespace blockptq {

struct ScaleSearchOptions {
  int64_t steps = 80;     ///< factors tried
  double smallest = 0.2;  ///< the last of them; the first is 1
  /// How many factors of every channel, the best by diag(H), are judged by all of H (a product of
  /// the cost of w H each). 0: diag(H) decides.
  int64_t exact = 16;
  at::ScalarType products = at::kFloat;  ///< of those products (product.h)
};

/// Scales [O] that minimise sum_i d_i e_i^2, d: `weights_I` (fp32, >= 0). w_OI in fp32.
at::Tensor search_scales(const at::Tensor& w_OI, int bits, const at::Tensor& weights_I,
                         int64_t steps, double smallest);

/// Per channel never worse than nearest() by diag(H) or, with `exact`, by H.
QTensor scale_search(const TargetWeight& weight, int bits, const GroupedStatistics& input,
                     const ScaleSearchOptions& options);

}  // namespace blockptq
