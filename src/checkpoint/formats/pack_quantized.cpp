// compressed-tensors "pack-quantized": codes packed into 32-bit words (Kimi-K2 sources).
// `X.weight_packed` I32 [out, ceil(in * bits / 32)], element i of a row holds q + 2^(bits-1) at bit
// bits * (i mod (32 / bits)), lowest first; `X.weight_scale` [out, 1] or [out, in / group];
// `X.weight_shape` I64 or I32 [2] = (out, in); with zero points, `X.weight_zero_point` I32
// [ceil(out * bits / 32), groups], packed like the codes but along the rows.
// Source: compressed-tensors 0.12, compressors/quantized_compressors/pack_quantized.py.
#include <array>
#include <cstring>

#include "base/error.h"
#include "base/size.h"
#include "checkpoint/formats/compressed_tensors_config.h"
#include "checkpoint/formats/format.h"
#include "checkpoint/formats/scales.h"

namespace blockptq {
namespace {

constexpr int64_t kWordBytes = 4;

int64_t codes_per_word(int bits) {
  return 32 / bits;
}

/// The two numbers of `X.weight_shape`.
Shape read_shape(const RawTensor& raw) {
  const TensorBytes bytes = raw.file->read(*raw.info);
  if (raw.info->dtype == Dtype::i64) {
    std::array<int64_t, 2> shape{};
    std::memcpy(shape.data(), bytes.data(), sizeof(shape));
    return {shape[0], shape[1]};
  }
  std::array<int32_t, 2> shape{};
  std::memcpy(shape.data(), bytes.data(), sizeof(shape));
  return {shape[0], shape[1]};
}

class PackQuantizedFormat final : public Format {
 public:
  std::string_view name() const override { return "pack_quantized"; }
  std::string_view quant_method() const override { return "compressed-tensors"; }

  void claim(Claims& claims) const override {
    const CompressedTensorsConfig config(claims.quantization_config());
    for (const RawTensor& raw : claims.raw_tensors()) {
      const std::string module = module_of(raw.info->name, ".weight_packed");
      if (!module.empty()) {
        claim_weight(claims, raw, module, config.scheme_of(module, raw.where()));
      }
    }
  }

  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const override {
    check_shape(tensor.parts[2], tensor.shape);
    const RawTensor& packed = tensor.parts[0];
    const int64_t row_bytes = packed.info->shape[1] * kWordBytes;
    const std::vector<float> scales = read_scales(tensor.parts[1], row_begin, row_end);
    const TensorBytes words =
        packed.file->read(*packed.info, row_begin * row_bytes, row_end * row_bytes);
    std::vector<int8_t> zero_points;
    if (tensor.parts.size() > 3) {
      zero_points = read_zero_points(tensor, row_begin, row_end);
    }
    decode_int_rows(tensor, row_end - row_begin, /*word_bits=*/32, words.data(), scales,
                    zero_points, type, out);
  }

 private:
  void claim_weight(Claims& claims, const RawTensor& raw, const std::string& module,
                    const IntScheme& scheme) const {
    check(raw.info->dtype == Dtype::i32 && raw.info->shape.size() == 2,
          "{}: expected I32 [out, words], found {} {}", raw.where(), dtype_name(raw.info->dtype),
          shape_text(raw.info->shape));
    refuse_column_order(claims, module);
    const RawTensor scale = companion(claims, raw, module + ".weight_scale");
    const RawTensor shape = companion(claims, raw, module + ".weight_shape");
    check((shape.info->dtype == Dtype::i64 || shape.info->dtype == Dtype::i32) &&
              shape.info->shape == Shape{2},
          "{}: expected I64 [2], found {} {}", shape.where(), dtype_name(shape.info->dtype),
          shape_text(shape.info->shape));
    StoredTensor tensor;
    tensor.name = module + ".weight";
    tensor.format = this;
    tensor.bits = scheme.bits;
    tensor.activation_bits = scheme.activation_bits;
    tensor.parts = {raw, scale, shape};
    tensor.shape = logical_shape(tensor, scheme);
    tensor.block_cols = group_columns(raw, scheme, tensor.shape[1]);
    const int64_t groups = scale_columns(tensor.shape[1], tensor.block_cols);
    check_scale_shape(scale, {tensor.shape[0], groups});
    if (!scheme.symmetric) {
      const RawTensor zero = companion(claims, raw, module + ".weight_zero_point");
      const Shape expected{ceil_div(tensor.shape[0], codes_per_word(scheme.bits)), groups};
      check(zero.info->dtype == Dtype::i32 && zero.info->shape == expected,
            "{}: expected I32 {}, found {} {}", zero.where(), shape_text(expected),
            dtype_name(zero.info->dtype), shape_text(zero.info->shape));
      tensor.parts.push_back(zero);
    }
    claims.yield(std::move(tensor));
  }

  /// [out, in]. With groups it follows from the scales, so that opening a folder need not touch a
  /// page for each of 70,000 weights; decoding compares it with `X.weight_shape`.
  static Shape logical_shape(const StoredTensor& tensor, const IntScheme& scheme) {
    const RawTensor& packed = tensor.parts[0];
    const RawTensor& scale = tensor.parts[1];
    const Shape& words = packed.info->shape;
    Shape shape;
    if (scheme.group_size > 0 && scale.info->shape.size() == 2) {
      shape = {words[0], checked_mul(scale.info->shape[1], scheme.group_size, scale.where())};
    } else {
      shape = read_shape(tensor.parts[2]);
      check(shape[0] >= 0 && shape[1] >= 0, "{}: expected sizes >= 0, found {}",
            tensor.parts[2].where(), shape_text(shape));
    }
    const int64_t per_word = codes_per_word(scheme.bits);
    const int64_t row_words = shape[1] / per_word + (shape[1] % per_word != 0 ? 1 : 0);
    check(words[0] == shape[0] && words[1] == row_words,
          "{}: {} columns of {} bits need I32 [{}, {}], found {}", packed.where(), shape[1],
          scheme.bits, shape[0], row_words, shape_text(words));
    return shape;
  }

  static void check_shape(const RawTensor& raw, const Shape& expected) {
    const Shape shape = read_shape(raw);
    check(shape == expected, "{}: expected {}, found {}", raw.where(), shape_text(expected),
          shape_text(shape));
  }

  /// Unpacks the zero points of rows [row_begin, row_end).
  static std::vector<int8_t> read_zero_points(const StoredTensor& tensor, int64_t row_begin,
                                              int64_t row_end) {
    const RawTensor& zero = tensor.parts[3];
    const int64_t groups = zero.info->shape[1];
    const int64_t per_word = codes_per_word(tensor.bits);
    const int64_t first_word = row_begin / per_word;
    const TensorBytes bytes = zero.file->read(*zero.info, first_word * groups * kWordBytes,
                                              ceil_div(row_end, per_word) * groups * kWordBytes);
    const auto* words = reinterpret_cast<const uint32_t*>(bytes.data());
    const uint32_t mask = (1U << tensor.bits) - 1;
    const int offset = 1 << (tensor.bits - 1);
    std::vector<int8_t> zero_points;
    zero_points.reserve(static_cast<size_t>((row_end - row_begin) * groups));
    for (int64_t row = row_begin; row < row_end; ++row) {
      const int64_t word_row = row / per_word - first_word;
      const auto shift = static_cast<uint32_t>(row % per_word * tensor.bits);
      for (int64_t group = 0; group < groups; ++group) {
        const uint32_t code = words[word_row * groups + group] >> shift & mask;
        zero_points.push_back(static_cast<int8_t>(static_cast<int>(code) - offset));
      }
    }
    return zero_points;
  }
};

}  // namespace

const Format& pack_quantized_format() {
  static const PackQuantizedFormat kFormat;
  return kFormat;
}

}  // namespace blockptq
