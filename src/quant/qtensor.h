// A weight as integers.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq {

/// The grid of `bits` bits: codes in [q_min, q_max], symmetric around zero but for q_min.
constexpr int64_t q_max(int bits) {
  return (int64_t{1} << (bits - 1)) - 1;
}
constexpr int64_t q_min(int bits) {
  return -(int64_t{1} << (bits - 1));
}

/// value[o, i] = scales[o] * codes[o, i].
struct QTensor {
  at::Tensor codes_OI;  ///< int8, in [q_min(bits), q_max(bits)] whatever the bits
  at::Tensor scales_O;  ///< fp32, finite and > 0
  int bits = 8;

  /// scales * codes in fp32, rounded once to `type`.
  at::Tensor dequantize(at::ScalarType type) const;
};

}  // namespace blockptq
