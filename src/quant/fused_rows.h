// The formulas of quant/grid.h and quant/straight_through.h on the CPU: the kernels of
// quantization run over chunks of rows that stay in the cache, so that a matrix passes memory once.
//
// Tensors are of any floating type and strides. `group`: as in quant/grid.h. A factor on the
// largest magnitude is one fp32 element for all rows or one per row. Shapes: O output channels, I
// input features, [..., I] in G groups.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/grid.h"

namespace blockptq::fused {

/// fp32 [O].
at::Tensor absmax_scales(const at::Tensor& w_OI, int bits, const at::Tensor& factor);

/// int8 [O, I] under scales_O (fp32).
at::Tensor codes(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O);

QActivation quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor);

/// Quantized and dequantized, in `type`.
at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor,
                         at::ScalarType type);

/// Undefined where not wanted.
struct Gradients {
  at::Tensor x;
  at::Tensor factor;  ///< fp32, the shape of the factor
};
/// Of fake_quantize(), as quant/straight_through.h says.
Gradients fake_quantize_backward(const at::Tensor& x, int bits, int64_t group,
                                 const at::Tensor& factor, const at::Tensor& grad_out, bool want_x);

}  // namespace blockptq::fused
