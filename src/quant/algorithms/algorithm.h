// How the codes of a weight are chosen. One file per algorithm; algorithms.cpp has the table.
//
// Shapes: O output channels, I input features, T tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "quant/qtensor.h"

namespace blockptq {

/// What calibration knows about the inputs of a linear. Sums over its tokens t, each weighted by
/// g_t^2 (g: the router's weight of a routed expert, else 1).
///
/// x: the input that the float model sees, x': the input that the quantized model sees (after
/// the quantized blocks and linears in front, itself fake-quantized).
struct InputStatistics {
  at::Tensor hessian_II;  ///< fp32, sum g^2 x' x'^T
  at::Tensor cross_II;    ///< fp32, sum g^2 (x - x') x'^T; undefined: x = x'
  int64_t tokens = 0;
};

}  // namespace blockptq
