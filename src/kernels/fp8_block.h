// FP8 E4M3 weights with one scale per block (the official DeepSeek-V3 checkpoints) to floating
// point.
//
// E4M3 here is the "fn" variant: no infinity, the codes 0x7f and 0xff are NaN, largest value 448
// (OCP 8-bit floating point specification, 2023).
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// A matrix [rows, cols] of E4M3 codes, row-major, and its scales [ceil(rows / block_rows),
/// ceil(cols / block_cols)].
struct Fp8BlockMatrix {
  const uint8_t* codes = nullptr;
  const float* scales = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t block_rows = 128;
  int64_t block_cols = 128;
};

/// Writes rows [row_begin, row_end) to `out` [row_end - row_begin, cols] (out points at the first
/// of them): out = code * scale of its block, the product in fp32, rounded to `type` half to even.
/// Returns false when a NaN code was met; `out` is then unspecified. Scales must be finite.
bool decode_fp8_block(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                      FloatType type, void* out);

}  // namespace blockptq::kernels
