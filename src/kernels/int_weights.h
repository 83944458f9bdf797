// Integer weights of compressed-tensors checkpoints to floating point.
//
// value = (code - zero_point) * scale of its row and group, the product in fp32, rounded half to
// even.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Codes [rows, cols], row-major, with one scale (and zero point) per row and group of `group_size`
/// columns.
struct IntMatrix {
  /// 8: int8 codes, one a byte, cols bytes a row ("int-quantized").
  /// 32: little-endian int32 words, ceil(cols * bits / 32) a row; element i holds code + 2^(bits-1)
  /// at bit bits * (i mod (32 / bits)) of word i / (32 / bits) ("pack-quantized").
  int word_bits = 8;
  int bits = 8;  ///< 4 or 8; int8 words hold any of them sign-extended
  const void* codes = nullptr;
  const float* scales = nullptr;        ///< [rows, ceil(cols / group_size)]
  const int8_t* zero_points = nullptr;  ///< same shape, signed; nullptr: 0
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group_size = 0;  ///< cols for per-channel scales
};

/// Writes rows [row_begin, row_end) to `out` [row_end - row_begin, cols] (out points at the first
/// of them). Scales must be finite.
void decode_int(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                void* out);

}  // namespace blockptq::kernels
