// Smoothing: factors per feature that move outliers of an activation into the weight behind it,
//
//   y = W x = (W diag(s)) (diag(1/s) x)
//
// (SmoothQuant, arXiv 2211.10438). diag(1/s) goes into the rows of what makes x: the weight of a
// norm, or the linear in front. calibrate/balance.h finds s.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq {

/// Positive fp32 factors to the powers of two next to them (in ratio), exactly: multiplying by them
/// rounds nothing, so that they may go into tensors that are stored in bf16 and not quantized.
at::Tensor nearest_power_of_two(const at::Tensor& factors);

/// W diag(s), in the type of w.
at::Tensor fold_into_columns(const at::Tensor& w_OI, const at::Tensor& factors_I);

/// diag(1/s) W, in the type of w: of a linear [O, I], or of the weight of a norm or a bias [O].
at::Tensor fold_into_rows(const at::Tensor& w, const at::Tensor& factors_O);

/// What is folded into one weight; undefined: nothing.
struct FoldedFactors {
  at::Tensor rows_O;     ///< of the features that it makes
  at::Tensor columns_I;  ///< of those that it reads

  bool defined() const { return rows_O.defined() || columns_I.defined(); }
};

/// One and the other.
FoldedFactors combined(const FoldedFactors& a, const FoldedFactors& b);

/// `w_OI` with them.
at::Tensor fold(at::Tensor w_OI, const FoldedFactors& factors);

}  // namespace blockptq
