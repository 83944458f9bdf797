#include "checkpoint/formats/scales.h"

#include <cmath>

#include "base/error.h"
#include "kernels/convert.h"
#include "kernels/int_weights.h"

namespace blockptq {

RawTensor companion(const Claims& claims, const RawTensor& tensor, const std::string& name) {
  const auto found = claims.find(name);
  if (!found) {
    fail("{}: {} without its {}", tensor.where(), dtype_name(tensor.info->dtype), name);
  }
  return *found;
}

void check_scale_shape(const RawTensor& scale, const Shape& expected) {
  const TensorInfo& info = *scale.info;
  check(float_type(info.dtype).has_value(),
        "{}: expected scales of type F32, BF16 or F16, found {}", scale.where(),
        dtype_name(info.dtype));
  if (info.shape != expected) {
    fail("{}: expected shape {}, found {}", scale.where(), shape_text(expected),
         shape_text(info.shape));
  }
}

std::vector<float> read_scales(const RawTensor& scale, int64_t row_begin, int64_t row_end) {
  const TensorInfo& info = *scale.info;
  const int64_t cols = info.shape.at(1);
  const int64_t row_bytes = cols * dtype_size(info.dtype);
  std::vector<float> values(static_cast<size_t>((row_end - row_begin) * cols));
  const TensorBytes bytes = scale.file->read(info, row_begin * row_bytes, row_end * row_bytes);
  kernels::convert(bytes.data(), float_type(info.dtype).value(),
                   static_cast<int64_t>(values.size()), kernels::FloatType::f32, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || values[i] <= 0) {
      fail("{}: expected finite scales > 0, found {} at [{}, {}]", scale.where(), values[i],
           row_begin + static_cast<int64_t>(i) / cols, static_cast<int64_t>(i) % cols);
    }
  }
  return values;
}

void decode_int_rows(const StoredTensor& tensor, int64_t rows, int word_bits, const void* codes,
                     const std::vector<float>& scales, const std::vector<int8_t>& zero_points,
                     kernels::FloatType type, void* out) {
  kernels::IntMatrix matrix;
  matrix.word_bits = word_bits;
  matrix.bits = tensor.bits;
  matrix.codes = codes;
  matrix.scales = scales.data();
  matrix.zero_points = zero_points.empty() ? nullptr : zero_points.data();
  matrix.rows = rows;
  matrix.cols = tensor.shape[1];
  matrix.group_size = tensor.block_cols;
  kernels::decode_int(matrix, 0, rows, type, out);
}

std::string module_of(const std::string& name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string();
}

}  // namespace blockptq
