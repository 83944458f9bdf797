// Factors per feature that even out what a grid has to cover: the activation is divided by them,
// the weights that read it are multiplied.
//
// Rounding to a grid costs a squared error of step^2 / 12 an element, and the step follows the
// largest element of a token or channel. With factors s, that is
//
//   A(s) = 1 / (12 q_a^2)  mean_t max_i (x_ti / s_i)^2   sum_r,i s_i^2 |w_ri|^2
//   B(s) = sum_r 1 / (12 q_r^2)  sum_o max_i (w_roi s_i)^2   mean_t sum_i (x_ti / s_i)^2
//
// for the activation (with groups of columns: the sum of it over the groups) and for the weights of
// the readers r. log(A + B) is convex in log s (sums and
// maxima of exponentials; a geometric program), and some steps of subgradient descent find its
// minimum: where the features that set the scales are those that carry the error.
// SmoothQuant (arXiv 2211.10438) is s_i = |x_i|^alpha / |w_i|^(1 - alpha) of one alpha for all; the
// descent starts at 1/2, and is held there the more, the fewer tokens it has.
//
// Shapes: T tokens, O output channels, I columns of a reader, F features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace blockptq {

/// What the readers see.
struct BalancedInput {
  at::Tensor x_TI;
  at::Tensor weight_T = {};  ///< of squared errors; undefined: 1
  int bits = 8;              ///< of the grid; kFloatBits: none
  int64_t group = 0;         ///< columns that share a scale; 0: all
};

struct BalancedReader {
  at::Tensor w_OI;
  int bits = 8;  ///< of the grid, a scale for every row; kFloatBits: none
};

/// So many tokens of so many columns are enough.
int64_t balanced_tokens(int64_t columns);

/// s, fp32 [F] > 0, its geometric mean 1; 1 for a feature that is zero in the input or in all
/// readers. Undefined when nothing is on a grid. columns_I (int64): the feature of each column;
/// undefined: its own. Of readers some channels are used.
at::Tensor balance_factors(const BalancedInput& input, const std::vector<BalancedReader>& readers,
                           const at::Tensor& columns_I = {});

}  // namespace blockptq
