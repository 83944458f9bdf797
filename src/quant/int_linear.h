// Weights and linears that stay integers.
//
//   y[t, o] = s_t s_o sum_i Q^x_ti Q^w_oi    exact, rounded once to fp32 (kernels/int_linear.h)
//
// Shapes: T tokens, O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/grid.h"
#include "quant/qtensor.h"

namespace blockptq {

/// A weight in the form that integer arithmetic reads: four-bit codes take half a byte.
struct IntWeight {
  at::Tensor codes;     ///< int8 [O, I]; 4 bits: uint8 [O, row_bytes] (kernels/int_linear.h)
  at::Tensor scales_O;  ///< fp32
  int bits = 8;         ///< of the form: 4 or 8
  int64_t inputs = 0;   ///< I

  /// Bytes of the codes of one output channel.
  static int64_t row_bytes(int bits, int64_t inputs) {
    return bits == 4 ? (inputs + 1) / 2 : inputs;
  }
  /// Output channels [begin, end), in the same memory.
  IntWeight rows(int64_t begin, int64_t end) const;
  /// The codes one by one: int8 [O, I].
  at::Tensor unpacked() const;
};

/// `weight` (any bits) in the form of 8 bits, in the same memory.
IntWeight as_int8(const QTensor& weight);
/// `weight` (any bits) in the smallest form.
IntWeight pack(const QTensor& weight);

/// y_TO in `type`; x has one scale per token.
at::Tensor int_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type);

/// x_TI times the values that the codes stand for, some channels at a time dequantized to its type.
at::Tensor dequantized_linear(const at::Tensor& x_TI, const IntWeight& w_OI);

/// int_linear from the values that the codes stand for: dequantized, multiplied and summed in fp64,
/// which holds every scale * code exactly. Slow; what int_linear() is compared with.
at::Tensor value_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type);

}  // namespace blockptq
