// Specification of kernels/rms_norm.h.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

void rms_norm_reference(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                        int64_t count, int64_t dim, const float* weight, double eps, void* out);

}  // namespace blockptq::kernels
