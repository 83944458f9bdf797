// Smoothing: factors per feature that move outliers of an activation into the weight behind it,
//
//   y = W x = (W diag(s)) (diag(1/s) x),   s_j = |x_j|^alpha / |W_j|^(1 - alpha)
//
// (SmoothQuant, arXiv 2211.10438, equation 4, whose magnitudes are maxima; here they are root mean
// squares of what is left after each row is divided by its own maximum, because it is that maximum
// which sets the row's scale: one token with huge features, such as the first of a text, counts as
// one token). diag(1/s) goes into the rows of what makes x: the weight of a norm, or the linear in
// front.
//
// Shapes: R rows (tokens of an activation, output channels of a weight), O output channels, I input
// features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blockptq {

/// Magnitudes of features over all rows added.
class FeatureMagnitude {
 public:
  void add(const at::Tensor& rows_RI);
  /// fp32 [I]; undefined when nothing was added.
  at::Tensor value() const;

 private:
  at::Tensor squares_I_;
  int64_t rows_ = 0;
};

/// s, fp32 [I], of magnitudes >= 0 (fp32 [I]; of the weights over all linears that read x); a
/// feature that is zero in either has factor 1. alpha in [0, 1]: how much moves to the weight.
at::Tensor smooth_factors(const at::Tensor& x_I, const at::Tensor& w_I, double alpha);

/// Positive fp32 factors to the powers of two next to them (in ratio), exactly: multiplying by them
/// rounds nothing, so that they may go into tensors that are stored in bf16 and not quantized.
at::Tensor nearest_power_of_two(const at::Tensor& factors);

/// W diag(s), in the type of w.
at::Tensor fold_into_columns(const at::Tensor& w_OI, const at::Tensor& factors_I);

/// diag(1/s) W, in the type of w: of a linear [O, I], or of the weight of a norm or a bias [O].
at::Tensor fold_into_rows(const at::Tensor& w, const at::Tensor& factors_O);

}  // namespace blockptq
