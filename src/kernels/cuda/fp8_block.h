// kernels/fp8_block.h on a CUDA device.
#pragma once

#include <cstdint>

#include "kernels/fp8_block.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Queues the decoding of rows [row_begin, row_end) on `stream`, a cudaStream_t. Every pointer is
/// one of device memory. Where a NaN code is met, *nan_found becomes 1 and the output NaN; nothing
/// sets it to 0 here. Returns the cudaError_t of the launch, 0 for success.
int decode_fp8_block_cuda(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                          FloatType type, void* out, int32_t* nan_found, void* stream);

}  // namespace blockptq::kernels
