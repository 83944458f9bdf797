// THE rounding formula of the program (and the only place of it outside the kernels):
//
//   s = factor * max |x| / q_max
//   Q = clamp(round(x / s), q_min, q_max)
//
// over an output channel of a weight, each with its factor (the clip), or over a token's group of
// `group` features, all with one factor (`alpha`).
//
// round is half to even, W / s an IEEE division in fp32; all scale arithmetic is fp32 whatever the
// type of the tensor. A channel or group of zeros has scale 1; NaN or
// infinity in it shows as a scale that is not finite. What is learned, evaluated, run in
// integers and deployed goes through here.
//
// Shapes: O output channels, I input features; activations [..., I].
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/qtensor.h"

namespace blockptq {

/// s_o: fp32 [O]. w_OI of any floating type; clip_O: fp32 [O], undefined: 1.
at::Tensor weight_scales(const at::Tensor& w_OI, int bits, const at::Tensor& clip_O = {});

/// Codes of w_OI (any floating type) under scales_O (fp32, > 0).
QTensor quantize_weight(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O);

/// A token's features as integers, per group of them.
struct QActivation {
  at::Tensor codes;   ///< int8, the shape of x
  at::Tensor scales;  ///< fp32 [..., I / group]
};

/// `group` 0: the whole last dimension; else a last group may be shorter. alpha: factor on the
/// dynamic maximum.
QActivation quantize_activation(const at::Tensor& x, int bits, int64_t group = 0, double alpha = 1);

/// Quantized and dequantized, in the type of x, in one pass over memory.
at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group = 0, double alpha = 1);

}  // namespace blockptq
