// fake_quantize_clamped_weight_st() of quant/straight_through.h on the CPU, chunk by chunk of rows.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq::fused {

at::Tensor fake_quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                                 const at::Tensor& high_O, at::ScalarType type);

struct ClampGradients {
  at::Tensor low;  ///< fp32, the shapes of the factors
  at::Tensor high;
};
ClampGradients fake_quantize_clamped_backward(const at::Tensor& w_OI, int bits,
                                              const at::Tensor& low_O, const at::Tensor& high_O,
                                              const at::Tensor& grad_out_OI);

}  // namespace blockptq::fused
