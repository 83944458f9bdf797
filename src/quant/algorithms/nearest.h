// Plain rounding (round to nearest) under the absolute maximum of every channel: quant/grid.h with
// c = 1. What every other algorithm is measured against.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/qtensor.h"
#include "quant/target_weight.h"

namespace blockptq {

/// Error unless the weight is finite.
QTensor nearest(const TargetWeight& weight, int bits);
/// Under given scales [O].
QTensor nearest(const TargetWeight& weight, int bits, const at::Tensor& scales_O);

}  // namespace blockptq
