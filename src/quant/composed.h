// The formulas of quant/grid.h and quant/straight_through.h as composed tensor operations, for
// devices without fused kernels; differentiable by ATen's autograd.
//
// `group` 0: the whole last dimension, else a last group may be shorter. Shapes: [..., I] features
// in groups [..., G].
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/int_linear.h"

namespace blockptq::composed {

/// fp32 [..., G]. `factor`: on the largest magnitude, broadcast to [..., G].
at::Tensor scales(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor);

/// Codes of x as fp32, the shape of x; the gradient passes straight through the rounding.
at::Tensor codes(const at::Tensor& x, int bits, int64_t group, const at::Tensor& scales);

/// scales * codes in fp32.
at::Tensor values(const at::Tensor& codes, int64_t group, const at::Tensor& scales);

/// Quantized on the grid of `scales()` and dequantized, in `type`.
at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor,
                         at::ScalarType type);

/// As fake_quantize_clamped_weight_st().
at::Tensor fake_quantize_clamped_weight(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                                        const at::Tensor& high_O, at::ScalarType type);

/// As blockptq::int_linear().
at::Tensor int_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type);

/// As hadamard().
at::Tensor hadamard(const at::Tensor& x);

}  // namespace blockptq::composed
