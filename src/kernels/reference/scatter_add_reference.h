// Specification of kernels/scatter_add.h.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

void scatter_add_rows_reference(const void* in, FloatType type, const float* weights,
                                const int64_t* rows, int64_t count, int64_t dim, void* out);

}  // namespace blockptq::kernels
