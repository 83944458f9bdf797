// Specification of kernels/int_weights.h.
#pragma once

#include <cstdint>

#include "kernels/int_weights.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void decode_int_reference(const IntMatrix& matrix, int64_t row_begin, int64_t row_end,
                          FloatType type, void* out);

}  // namespace blockptq::kernels
