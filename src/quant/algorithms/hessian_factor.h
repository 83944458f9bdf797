// What rounding needs of the statistics of an input, computed once for all weights that see it.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/algorithms/algorithm.h"

namespace blockptq {

/// The Hessian damped, its features in the order of rounding from last to first, and its Cholesky
/// factor. Two matrices [I, I].
struct HessianFactor {
  at::Tensor order_I;     ///< int64: row k of the matrices is feature order_I[k]
  at::Tensor hessian_II;  ///< H + damping * mean(diag H) * identity
  at::Tensor lower_II;    ///< L: lower triangular, L L^T = hessian_II
  double damping = 0;     ///< relative to the mean of the diagonal

  /// Columns of x [..., I] from the order of the features to that of the factor, and back.
  at::Tensor to_order(const at::Tensor& x) const;
  at::Tensor from_order(const at::Tensor& x) const;
};

struct FactorOptions {
  /// Relative to the mean of the diagonal, for any number of tokens.
  double damping = 0.03;
  /// Times I / tokens, added to `damping`: a covariance estimated from few tokens per feature knows
  /// its small eigenvalues badly.
  double token_damping = 0.6;
  /// Features with large second moments are rounded first (`act-order` of GPTQ's authors).
  bool act_order = true;
};

/// Damping is raised until the factor exists (fp32 sums may be indefinite). Features that were
/// never active keep a diagonal of the damping alone and so are rounded to nearest; a Hessian of
/// zeros becomes the identity.
/// Of statistics that were moved in, never more than two matrices exist at a time.
HessianFactor factor_hessian(InputStatistics input, const FactorOptions& options);

/// The weight, in the order of the factor, that on the inputs x' of the quantized model comes
/// closest to what w gives on the inputs x of the float model: the minimiser over real V of
///
///   sum g^2 |w x - V x'|^2 + lambda |V - w|^2,    V = w + w C (H + lambda I)^-1,
///
/// with C the cross sums and H + lambda I the damped Hessian. The error of any V exceeds the least
/// by (V - V*) H (V - V*)^T, so that rounding V* under H is what remains to be done. Same objective
/// as Qronos (arXiv 2505.11695) and GPTAQ (arXiv 2504.02692), solved before rounding, not during.
/// correction_OI: w C, consumed; undefined: V = w. All in fp32.
at::Tensor corrected_target(const at::Tensor& w_OI, at::Tensor correction_OI,
                            const HessianFactor& factor);

}  // namespace blockptq
