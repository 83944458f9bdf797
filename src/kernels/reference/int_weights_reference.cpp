#include "kernels/reference/int_weights_reference.h"

#include <cstring>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

int code_at(const IntMatrix& matrix, int64_t row, int64_t col) {
  const auto* bytes = static_cast<const uint8_t*>(matrix.codes);
  if (matrix.word_bits == 8) {
    return static_cast<int8_t>(bytes[row * matrix.cols + col]);
  }
  const int64_t codes_per_word = 32 / matrix.bits;
  const int64_t words_per_row = (matrix.cols + codes_per_word - 1) / codes_per_word;
  uint32_t word = 0;
  std::memcpy(&word, bytes + 4 * (row * words_per_row + col / codes_per_word), sizeof word);
  const uint32_t mask = (1U << matrix.bits) - 1;
  const uint32_t stored = (word >> (matrix.bits * (col % codes_per_word))) & mask;
  return static_cast<int>(stored) - (1 << (matrix.bits - 1));
}

}  // namespace

void decode_int_reference(const IntMatrix& matrix, int64_t row_begin, int64_t row_end,
                          FloatType type, void* out) {
  const int64_t groups_per_row = (matrix.cols + matrix.group_size - 1) / matrix.group_size;
  visit_float_type(type, [&](auto constant) {
    int64_t out_index = 0;
    for (int64_t row = row_begin; row < row_end; ++row) {
      for (int64_t col = 0; col < matrix.cols; ++col) {
        const int64_t group = row * groups_per_row + col / matrix.group_size;
        const int zero_point = matrix.zero_points == nullptr ? 0 : matrix.zero_points[group];
        const int steps = code_at(matrix, row, col) - zero_point;
        const float value = static_cast<float>(steps) * matrix.scales[group];
        store_element<decltype(constant)::value>(value, out, out_index++);
      }
    }
  });
}

}  // namespace blockptq::kernels
