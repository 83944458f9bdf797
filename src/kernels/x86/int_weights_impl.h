// kernels/int_weights.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/int_weights.h"
#include "kernels/types.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

/// Unpacks `count` codes from whole bytes of little-endian words to int8.
template <typename Vector>
void unpack_codes(const uint8_t* packed, int bits, int64_t count, uint8_t* codes) {
  constexpr int64_t kBytes = Vector::kBytes;
  if (bits == 4) {
    const auto bias = Vector::broadcast_byte(8);
    transform<kBytes / 2, 1, 2>(
        packed, (count + 1) / 2, codes, [&](const uint8_t* from, uint8_t* to) {
          Vector::store_bytes(Vector::subtract_bytes(Vector::load_nibbles(from), bias), to);
        });
  } else {
    const auto bias = Vector::broadcast_byte(128);
    transform<kBytes, 1, 1>(packed, count, codes, [&](const uint8_t* from, uint8_t* to) {
      Vector::store_bytes(Vector::subtract_bytes(Vector::load_bytes(from), bias), to);
    });
  }
}

/// Codes of one group that share `scale` and `zero_point`.
template <typename Vector, FloatType type>
void scale_codes(const uint8_t* codes, int64_t count, float scale, int zero_point, uint8_t* out) {
  const auto scales = Vector::broadcast(scale);
  const auto zero_points = Vector::broadcast(static_cast<float>(zero_point));
  transform<Vector::kLanes, 1, element_size(type)>(
      codes, count, out, [&](const uint8_t* from, uint8_t* to) {
        // Small integers: the difference is exact in fp32.
        const auto steps = Vector::subtract(Vector::load_int8(from), zero_points);
        Vector::template store<type, false>(Vector::multiply(steps, scales), to);
      });
}

/// Columns [begin, end) of a row whose first group is `first_group`; codes and out start at
/// `begin`.
template <typename Vector, FloatType type>
void scale_columns(const IntMatrix& matrix, int64_t first_group, int64_t begin, int64_t end,
                   const uint8_t* codes, uint8_t* out) {
  for (int64_t col = begin; col < end;) {
    const int64_t group_in_row = col / matrix.group_size;
    const int64_t group_end = (group_in_row + 1) * matrix.group_size;
    const int64_t stop = group_end < end ? group_end : end;
    const int64_t group = first_group + group_in_row;
    const int zero_point = matrix.zero_points == nullptr ? 0 : matrix.zero_points[group];
    scale_codes<Vector, type>(codes + (col - begin), stop - col, matrix.scales[group], zero_point,
                              out + (col - begin) * element_size(type));
    col = stop;
  }
}

template <typename Vector, FloatType type>
void decode_packed_row(const IntMatrix& matrix, int64_t first_group, const uint8_t* packed,
                       uint8_t* out) {
  constexpr int64_t kChunk = 2048;  // a multiple of the codes in a word; stays in the cache
  uint8_t codes[kChunk];
  for (int64_t begin = 0; begin < matrix.cols; begin += kChunk) {
    const int64_t end = matrix.cols - begin < kChunk ? matrix.cols : begin + kChunk;
    unpack_codes<Vector>(packed + begin * matrix.bits / 8, matrix.bits, end - begin, codes);
    scale_columns<Vector, type>(matrix, first_group, begin, end, codes,
                                out + begin * element_size(type));
  }
}

template <typename Vector>
void decode_int_vectors(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                        void* out) {
  const int64_t groups_per_row = (matrix.cols + matrix.group_size - 1) / matrix.group_size;
  const int64_t words_per_row = (matrix.cols * matrix.bits + 31) / 32;
  const bool packed = matrix.word_bits != 8;
  const int64_t bytes_per_row = packed ? 4 * words_per_row : matrix.cols;
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t row = row_begin; row < row_end; ++row) {
      const uint8_t* codes = static_cast<const uint8_t*>(matrix.codes) + row * bytes_per_row;
      uint8_t* out_row =
          static_cast<uint8_t*>(out) + (row - row_begin) * matrix.cols * element_size(kType);
      const int64_t first_group = row * groups_per_row;
      if (packed) {
        decode_packed_row<Vector, kType>(matrix, first_group, codes, out_row);
      } else {
        scale_columns<Vector, kType>(matrix, first_group, 0, matrix.cols, codes, out_row);
      }
    }
  });
}

}  // namespace blockptq::kernels
