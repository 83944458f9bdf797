// kernels/fp8_block.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/fp8_block.h"
#include "kernels/types.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

template <typename Vector>
bool has_nan_code(const uint8_t* codes, int64_t count) {
  constexpr int64_t kBytes = Vector::kBytes;
  const auto magnitude_mask = Vector::broadcast_byte(0x7f);
  auto largest = Vector::broadcast_byte(0);
  const auto visit = [&](const uint8_t* at) {
    const auto magnitudes = Vector::bitwise_and(Vector::load_bytes(at), magnitude_mask);
    largest = Vector::max_bytes(largest, magnitudes);
  };
  int64_t i = 0;
  for (; i + kBytes <= count; i += kBytes) {
    visit(codes + i);
  }
  if (i < count) {
    uint8_t padded[kBytes] = {};
    std::memcpy(padded, codes + i, count - i);
    visit(padded);
  }
  return Vector::any_equal(largest, magnitude_mask);
}

/// `count` codes that share `scale`.
template <typename Vector, FloatType type>
void decode_fp8_run(const uint8_t* codes, int64_t count, float scale, uint8_t* out) {
  const auto scales = Vector::broadcast(scale);
  transform<Vector::kLanes, 1, element_size(type)>(
      codes, count, out, [&](const uint8_t* from, uint8_t* to) {
        const auto value = Vector::multiply(Vector::load_e4m3(from), scales);
        Vector::template store<type, false>(value, to);
      });
}

/// One row; scales: one per block.
template <typename Vector, FloatType type>
void decode_fp8_row(const uint8_t* codes, const float* scales, int64_t cols, int64_t block_cols,
                    uint8_t* out) {
  for (int64_t col = 0; col < cols; col += block_cols) {
    const int64_t count = cols - col < block_cols ? cols - col : block_cols;
    decode_fp8_run<Vector, type>(codes + col, count, *scales++, out + col * element_size(type));
  }
}

template <typename Vector>
bool decode_fp8_block_vectors(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                              FloatType type, void* out) {
  const int64_t blocks_per_row = (matrix.cols + matrix.block_cols - 1) / matrix.block_cols;
  return visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    auto* out_row = static_cast<uint8_t*>(out);
    for (int64_t row = row_begin; row < row_end; ++row) {
      const uint8_t* codes = matrix.codes + row * matrix.cols;
      if (has_nan_code<Vector>(codes, matrix.cols)) {
        return false;
      }
      const float* scales = matrix.scales + (row / matrix.block_rows) * blocks_per_row;
      decode_fp8_row<Vector, kType>(codes, scales, matrix.cols, matrix.block_cols, out_row);
      out_row += matrix.cols * element_size(kType);
    }
    return true;
  });
}

}  // namespace blockptq::kernels
