// Conversion between floating-point types, half to even.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// out[i] = in[i] for i in [0, count), for any two types; the same type copies. Beyond the largest
/// value is infinity; NaN stays NaN. Buffers need no alignment and must not overlap.
void convert(const void* in, FloatType in_type, int64_t count, FloatType out_type, void* out);

}  // namespace blockptq::kernels
