// Tensors stored as they are: BF16, F16, F32, and types that are only copied (integers, booleans).
#include <array>

#include "base/error.h"
#include "checkpoint/formats/format.h"
#include "kernels/convert.h"

namespace blockptq {
namespace {

// A raw tensor that ends so is a part of a quantized weight; left over, it means that its other
// part or the quantization_config is missing.
constexpr std::array<std::string_view, 6> kQuantizedParts{".weight_scale_inv",  ".weight_scale",
                                                          ".weight_packed",     ".weight_shape",
                                                          ".weight_zero_point", ".weight_g_idx"};

void refuse_part(const RawTensor& raw, bool has_quantization_config) {
  const TensorInfo& info = *raw.info;
  const std::string_view why = has_quantization_config
                                   ? "but quantization_config explains no weight that it belongs to"
                                   : "but config.json has no quantization_config";
  for (const std::string_view part : kQuantizedParts) {
    check(!info.name.ends_with(part), "{}: a part of a quantized weight, {}", raw.where(), why);
  }
  check(info.dtype != Dtype::f8_e4m3 && info.dtype != Dtype::f8_e5m2, "{}: {} values, {}",
        raw.where(), dtype_name(info.dtype), why);
}

class PlainFormat final : public Format {
 public:
  std::string_view name() const override { return "plain"; }
  std::string_view quant_method() const override { return ""; }

  void claim(Claims& claims) const override {
    for (const RawTensor& raw : claims.raw_tensors()) {
      if (!claims.claimed(raw)) {
        refuse_part(raw, claims.has_quantization_config());
        StoredTensor tensor;
        tensor.name = raw.info->name;
        tensor.format = this;
        tensor.shape = raw.info->shape;
        tensor.parts = {raw};
        claims.yield(std::move(tensor));
      }
    }
  }

  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const override {
    const RawTensor& raw = tensor.parts.front();
    const auto stored = float_type(raw.info->dtype);
    if (!stored) {
      fail("{}: expected F32, BF16 or F16, found {}", raw.where(), dtype_name(raw.info->dtype));
    }
    const int64_t row_bytes = tensor.row_size() * dtype_size(raw.info->dtype);
    const TensorBytes bytes = raw.file->read(*raw.info, row_begin * row_bytes, row_end * row_bytes);
    kernels::convert(bytes.data(), *stored, (row_end - row_begin) * tensor.row_size(), type, out);
  }
};

}  // namespace

const Format& plain_format() {
  static const PlainFormat kFormat;
  return kFormat;
}

}  // namespace blockptq
