#include "kernels/reference/fp8_block_reference.h"

#include <algorithm>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

/// `count` codes that share `scale`; they become elements from `out_index` on.
template <FloatType type>
bool decode_run(const uint8_t* codes, int64_t count, float scale, void* out, int64_t out_index) {
  for (int64_t i = 0; i < count; ++i) {
    if (is_nan_e4m3(codes[i])) {
      return false;
    }
    store_element<type>(float_from_e4m3(codes[i]) * scale, out, out_index + i);
  }
  return true;
}

}  // namespace

bool decode_fp8_block_reference(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                                FloatType type, void* out) {
  const int64_t blocks_per_row = (matrix.cols + matrix.block_cols - 1) / matrix.block_cols;
  return visit_float_type(type, [&](auto constant) {
    for (int64_t row = row_begin; row < row_end; ++row) {
      const uint8_t* codes = matrix.codes + row * matrix.cols;
      const float* scale = matrix.scales + (row / matrix.block_rows) * blocks_per_row;
      for (int64_t col = 0; col < matrix.cols; col += matrix.block_cols) {
        const int64_t count = std::min(matrix.block_cols, matrix.cols - col);
        const int64_t out_index = (row - row_begin) * matrix.cols + col;
        if (!decode_run<decltype(constant)::value>(codes + col, count, *scale++, out, out_index)) {
          return false;
        }
      }
    }
    return true;
  });
}

}  // namespace blockptq::kernels
