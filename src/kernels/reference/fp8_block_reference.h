// Specification of kernels/fp8_block.h.
#pragma once

#include <cstdint>

#include "kernels/fp8_block.h"
#include "kernels/types.h"

namespace blockptq::kernels {

bool decode_fp8_block_reference(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                                FloatType type, void* out);

}  // namespace blockptq::kernels
