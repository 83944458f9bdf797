// FP8 with one scale per block, as the official DeepSeek-V3 and V3.2 checkpoints store weights:
// `X.weight` F8_E4M3 [out, in] and `X.weight_scale_inv` [ceil(out / bo), ceil(in / bi)];
// value = code * scale of its block. quantization_config: quant_method "fp8", weight_block_size.
// Source: inference/kernel.py of deepseek-ai/DeepSeek-V3 (weight_dequant).
#include "kernels/fp8_block.h"

#include <algorithm>

#include "base/error.h"
#include "base/size.h"
#include "checkpoint/formats/format.h"
#include "checkpoint/formats/scales.h"

namespace blockptq {
namespace {

struct BlockSize {
  int64_t rows;
  int64_t cols;
};

BlockSize parse_block_size(const JsonView& config) {
  const std::string element = config.string_or("fmt", "e4m3");
  check(element == "e4m3", "{}.fmt: expected e4m3, found {:?}", config.where(), element);
  const JsonView size = config.at("weight_block_size");
  size.expect_array();
  check(size.size() == 2, "{}: expected 2 numbers, found {}", size.where(), size.size());
  constexpr int64_t kMax = 1 << 20;
  return {size.at(size_t{0}).integer(1, kMax), size.at(size_t{1}).integer(1, kMax)};
}

class Fp8BlockFormat final : public Format {
 public:
  std::string_view name() const override { return "fp8_block"; }
  std::string_view quant_method() const override { return "fp8"; }

  void claim(Claims& claims) const override {
    const BlockSize block = parse_block_size(claims.quantization_config());
    for (const RawTensor& raw : claims.raw_tensors()) {
      if (raw.info->dtype == Dtype::f8_e4m3) {
        claim_weight(claims, raw, block);
      }
    }
  }

  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const override {
    const RawTensor& weight = tensor.parts[0];
    const int64_t cols = tensor.shape[1];
    const int64_t first_block = row_begin / tensor.block_rows;
    const std::vector<float> scales =
        read_scales(tensor.parts[1], first_block, ceil_div(row_end, tensor.block_rows));
    const TensorBytes codes = weight.file->read(*weight.info, row_begin * cols, row_end * cols);
    // The matrix that the kernel sees begins with the first block that a row lies in.
    const int64_t skipped = row_begin - first_block * tensor.block_rows;
    kernels::Fp8BlockMatrix matrix;
    matrix.codes = codes.data() - skipped * cols;
    matrix.scales = scales.data();
    matrix.rows = skipped + row_end - row_begin;
    matrix.cols = cols;
    matrix.block_rows = tensor.block_rows;
    matrix.block_cols = tensor.block_cols;
    if (!kernels::decode_fp8_block(matrix, skipped, matrix.rows, type, out)) {
      refuse_nan(weight, codes, row_begin, cols);
    }
  }

 private:
  void claim_weight(Claims& claims, const RawTensor& raw, BlockSize block) const {
    const std::string& name = raw.info->name;
    const std::string module = module_of(name, ".weight");
    check(
        !module.empty() && raw.info->shape.size() == 2,
        "{}: expected FP8 values in a tensor [out, in] whose name ends in .weight, found shape {}",
        raw.where(), shape_text(raw.info->shape));
    const RawTensor scale = companion(claims, raw, module + ".weight_scale_inv");
    const Shape& shape = raw.info->shape;
    check_scale_shape(scale, {ceil_div(shape[0], block.rows), ceil_div(shape[1], block.cols)});
    StoredTensor tensor;
    tensor.name = name;
    tensor.format = this;
    tensor.shape = shape;
    tensor.parts = {raw, scale};
    tensor.bits = 8;
    tensor.block_rows = block.rows;
    tensor.block_cols = block.cols;
    claims.yield(std::move(tensor));
  }

  [[noreturn]] static void refuse_nan(const RawTensor& weight, const TensorBytes& codes,
                                      int64_t row_begin, int64_t cols) {
    const uint8_t* end = codes.data() + codes.size();
    const uint8_t* nan =
        std::find_if(codes.data(), end, [](uint8_t code) { return (code & 0x7f) == 0x7f; });
    BPTQ_ASSERT(nan != end);
    const int64_t index = nan - codes.data();
    fail("{}: expected numbers, found the NaN code {:#04x} at [{}, {}]", weight.where(), *nan,
         row_begin + index / cols, index % cols);
  }
};

}  // namespace

const Format& fp8_block_format() {
  static const Fp8BlockFormat kFormat;
  return kFormat;
}

}  // namespace blockptq
