// Plain rounding (round to nearest) under the absolute maximum of every channel: quant/grid.h with
// c = 1. What every other algorithm is measured against.
#pragma once

#include <ATen/core/Tensor.h>

#include "quant/qtensor.h"

namespace blockptq {

/// Error unless w_OI (any floating type) is finite.
QTensor nearest(const at::Tensor& w_OI, int bits);

}  // namespace blockptq
