// Specification of kernels/rope.h.
#pragma once

#include <cstdint>

#include "kernels/rope.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void rotate_reference(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                      int64_t heads, int64_t dim, const float* cos, const float* sin,
                      bool interleaved, void* out, HeadStrides out_strides);

}  // namespace blockptq::kernels
