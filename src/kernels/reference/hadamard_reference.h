// Specification of kernels/hadamard.h.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

void hadamard_rows_reference(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                             float* scratch);

}  // namespace blockptq::kernels
