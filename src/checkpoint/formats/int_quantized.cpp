// compressed-tensors "int-quantized": one code per byte.
// `X.weight` I8 [out, in], `X.weight_scale` [out, 1] or [out, in / group], optionally
// `X.weight_zero_point` I8 of the shape of the scales; value = (code - zero point) * scale.
// Source: compressed-tensors 0.12, compressors/quantized_compressors/naive_quantized.py.
#include <algorithm>

#include "base/error.h"
#include "checkpoint/formats/compressed_tensors_config.h"
#include "checkpoint/formats/format.h"
#include "checkpoint/formats/scales.h"

namespace blockptq {
namespace {

/// Error unless all codes are in [-2^(bits-1), 2^(bits-1)).
void check_codes(const RawTensor& weight, std::span<const int8_t> codes, int bits,
                 int64_t first_row, int64_t cols) {
  const int low = -(1 << (bits - 1));
  const int high = -low - 1;
  const auto outside = [&](int8_t code) { return code < low || code > high; };
  const auto bad = std::find_if(codes.begin(), codes.end(), outside);
  if (bad != codes.end()) {
    const int64_t index = bad - codes.begin();
    fail("{}: expected {}-bit codes from {} to {}, found {} at [{}, {}]", weight.where(), bits, low,
         high, static_cast<int>(*bad), first_row + index / cols, index % cols);
  }
}

/// The codes of some rows, known to be of the tensor's bits.
class RowCodes {
 public:
  RowCodes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end)
      : bytes_(tensor.parts[0].file->read(*tensor.parts[0].info, row_begin * tensor.shape[1],
                                          row_end * tensor.shape[1])) {
    if (tensor.bits < 8) {
      check_codes(tensor.parts[0], {begin(), end()}, tensor.bits, row_begin, tensor.shape[1]);
    }
  }

  const int8_t* begin() const { return reinterpret_cast<const int8_t*>(bytes_.data()); }
  const int8_t* end() const { return begin() + bytes_.size(); }

 private:
  TensorBytes bytes_;
};

class IntQuantizedFormat final : public Format {
 public:
  std::string_view name() const override { return "int_quantized"; }
  std::string_view quant_method() const override { return "compressed-tensors"; }

  void claim(Claims& claims) const override {
    const CompressedTensorsConfig config(claims.quantization_config());
    for (const RawTensor& raw : claims.raw_tensors()) {
      const std::string module = module_of(raw.info->name, ".weight");
      if (raw.info->dtype == Dtype::i8 && !module.empty() && !claims.claimed(raw)) {
        claim_weight(claims, raw, module, config.scheme_of(module, raw.where()));
      }
    }
  }

  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const override {
    const std::vector<float> scales = read_scales(tensor.parts[1], row_begin, row_end);
    const RowCodes codes(tensor, row_begin, row_end);
    std::vector<int8_t> zero_points;
    if (tensor.parts.size() > 2) {
      zero_points = read_zero_points(tensor, row_begin, row_end);
    }
    decode_int_rows(tensor, row_end - row_begin, /*word_bits=*/8, codes.begin(), scales,
                    zero_points, type, out);
  }

  void decode_codes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end, int8_t* codes,
                    float* scales) const override {
    const RowCodes rows(tensor, row_begin, row_end);
    std::copy(rows.begin(), rows.end(), codes);
    std::ranges::copy(read_scales(tensor.parts[1], row_begin, row_end), scales);
  }

 private:
  void claim_weight(Claims& claims, const RawTensor& raw, const std::string& module,
                    const IntScheme& scheme) const {
    const Shape& shape = raw.info->shape;
    check(shape.size() == 2, "{}: expected shape [out, in], found {}", raw.where(),
          shape_text(shape));
    refuse_column_order(claims, module);
    StoredTensor tensor;
    tensor.name = raw.info->name;
    tensor.format = this;
    tensor.shape = shape;
    tensor.bits = scheme.bits;
    tensor.activation_bits = scheme.activation_bits;
    tensor.block_cols = group_columns(raw, scheme, shape[1]);
    tensor.row_codes = scheme.symmetric && scheme.group_size == 0;
    const Shape grid{shape[0], scale_columns(shape[1], tensor.block_cols)};
    const RawTensor scale = companion(claims, raw, module + ".weight_scale");
    check_scale_shape(scale, grid);
    tensor.parts = {raw, scale};
    const std::string zero_name = module + ".weight_zero_point";
    if (!scheme.symmetric || claims.find(zero_name)) {
      const RawTensor zero = companion(claims, raw, zero_name);
      check(zero.info->dtype == Dtype::i8 && zero.info->shape == grid,
            "{}: expected I8 {}, found {} {}", zero.where(), shape_text(grid),
            dtype_name(zero.info->dtype), shape_text(zero.info->shape));
      tensor.parts.push_back(zero);
      tensor.row_codes = false;
    }
    claims.yield(std::move(tensor));
  }

  static std::vector<int8_t> read_zero_points(const StoredTensor& tensor, int64_t row_begin,
                                              int64_t row_end) {
    const RawTensor& zero = tensor.parts[2];
    const int64_t groups = zero.info->shape[1];
    const TensorBytes bytes = zero.file->read(*zero.info, row_begin * groups, row_end * groups);
    const auto* values = reinterpret_cast<const int8_t*>(bytes.data());
    const std::span<const int8_t> codes(values, static_cast<size_t>(bytes.size()));
    check_codes(zero, codes, tensor.bits, row_begin, groups);
    return {codes.begin(), codes.end()};
  }
};

}  // namespace

const Format& int_quantized_format() {
  static const IntQuantizedFormat kFormat;
  return kFormat;
}

}  // namespace blockptq
