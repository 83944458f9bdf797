// The layout of the AMCT sample for Ascend servers, read and written.
//
//   8 bits: `X.weight` I8 [out, in], `X.weight_scale` F32 [out, 1] (as int-quantized, which reads
//   it) 4 bits, routed experts: `X.weight` I8 [out / 2, in], byte [i, j] = Q[2i+1, j] << 4 | Q[2i,
//   j] &
//     15; `X.weight_scale` U64 [out, 1], the fp32 bits of the scale in the low half; `X.bias` F32
//     [out] = sum over j of 8 scale_i Q_ij
//   int8 cache: `...indexer.hadamard_matrix` BF16 [d, d] behind the indexer's key projection
//   learned clips: `...self_attn.ckv_a_alpha`, `...down_proj.alpha`, F32 [1]
//
// Source: deploy.py of the DeepSeek-V3.2 sample in amct_pytorch, without its defects.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/size.h"
#include "checkpoint/formats/format.h"
#include "checkpoint/formats/output_format.h"
#include "checkpoint/formats/scales.h"
#include "kernels/convert.h"
#include "kernels/int_weights.h"
#include "kernels/nibbles.h"

namespace blockptq {

const Format& plain_format();

namespace {

constexpr std::string_view kHadamard = "hadamard_matrix";
constexpr std::string_view kLatentClip = "self_attn.ckv_a_alpha";
constexpr std::string_view kDownClip = "down_proj.alpha";

/// Rows [row_begin, row_end) of U64 scales whose low half holds fp32.
void read_wide_scales(const RawTensor& scale, int64_t row_begin, int64_t row_end, float* out) {
  const TensorBytes bytes =
      scale.file->read(*scale.info, row_begin * int64_t{8}, row_end * int64_t{8});
  for (int64_t row = row_begin; row < row_end; ++row) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + (row - row_begin) * int64_t{8}, sizeof(word));
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(word));
    if (word >> 32 != 0 || !std::isfinite(value) || value <= 0) {
      fail("{}: expected a finite scale > 0 in the low 32 bits, found {:#018x} at [{}, 0]",
           scale.where(), word, row);
    }
    *out++ = value;
  }
}

/// Reads packed experts and the tensors that describe the quantization; 8-bit weights are those of
/// int-quantized.
class AscendFormat final : public Format {
 public:
  std::string_view name() const override { return "ascend"; }
  std::string_view quant_method() const override { return "compressed-tensors"; }

  void claim(Claims& claims) const override {
    for (const RawTensor& raw : claims.raw_tensors()) {
      const std::string& tensor = raw.info->name;
      const std::string module = module_of(tensor, ".weight");
      const auto scale = module.empty() ? std::nullopt : claims.find(module + ".weight_scale");
      if (scale && scale->info->dtype == Dtype::u64) {
        claim_packed(claims, raw, *scale, module);
      } else if (tensor.ends_with(kHadamard) || tensor.ends_with(kLatentClip) ||
                 tensor.ends_with(kDownClip)) {
        claim_description(claims, raw);
      }
    }
  }

  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const override {
    kernels::IntMatrix matrix;
    matrix.rows = row_end - row_begin;
    matrix.cols = tensor.shape[1];
    matrix.group_size = matrix.cols;
    std::vector<int8_t> codes(static_cast<size_t>(matrix.rows * matrix.cols));
    std::vector<float> scales(static_cast<size_t>(matrix.rows));
    decode_codes(tensor, row_begin, row_end, codes.data(), scales.data());
    matrix.codes = codes.data();
    matrix.scales = scales.data();
    kernels::decode_int(matrix, 0, matrix.rows, type, out);
  }

  void decode_codes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end, int8_t* codes,
                    float* scales) const override {
    const RawTensor& weight = tensor.parts[0];
    const int64_t cols = tensor.shape[1];
    const TensorBytes bytes =
        weight.file->read(*weight.info, row_begin / 2 * cols, ceil_div(row_end, 2) * cols);
    for (int64_t row = row_begin; row < row_end; ++row) {
      const uint8_t* packed = bytes.data() + (row / 2 - row_begin / 2) * cols;
      kernels::unpack_nibbles(packed, cols, /*high=*/row % 2 == 1, codes);
      codes += cols;
    }
    read_wide_scales(tensor.parts[1], row_begin, row_end, scales);
  }

 private:
  void claim_packed(Claims& claims, const RawTensor& raw, const RawTensor& scale,
                    const std::string& module) const {
    const Shape& packed = raw.info->shape;
    check(raw.info->dtype == Dtype::i8 && packed.size() == 2,
          "{}: expected I8 [out / 2, in] beside U64 scales, found {} {}", raw.where(),
          dtype_name(raw.info->dtype), shape_text(packed));
    const int64_t out = checked_mul(2, packed[0], raw.where());
    check(scale.info->shape == Shape{out, 1}, "{}: expected shape [{}, 1], found {}", scale.where(),
          out, shape_text(scale.info->shape));
    const RawTensor bias = companion(claims, raw, module + ".bias");
    check(bias.info->dtype == Dtype::f32 && bias.info->shape == Shape{out},
          "{}: expected F32 [{}], found {} {}", bias.where(), out, dtype_name(bias.info->dtype),
          shape_text(bias.info->shape));
    StoredTensor tensor;
    tensor.name = raw.info->name;
    tensor.format = this;
    tensor.shape = {out, packed[1]};
    tensor.parts = {raw, scale, bias};
    tensor.bits = 4;
    tensor.activation_bits = 8;  // group_1 of every such folder, dynamic per token
    tensor.block_cols = std::max<int64_t>(packed[1], 1);
    tensor.row_codes = true;
    claims.yield(std::move(tensor));
  }

  static void claim_description(Claims& claims, const RawTensor& raw) {
    StoredTensor tensor;
    tensor.name = raw.info->name;
    tensor.format = &plain_format();
    tensor.shape = raw.info->shape;
    tensor.parts = {raw};
    tensor.auxiliary = true;
    claims.yield(std::move(tensor));
  }
};

/// Four-bit codes, two rows to a byte.
class PackedEncoder final : public WeightEncoder {
 public:
  void add(const CodeRows& rows, const Append& append) override {
    BPTQ_ASSERT(rows.rows % 2 == 0);
    packed_.resize(static_cast<size_t>(rows.rows / 2 * rows.cols));
    for (int64_t pair = 0; pair < rows.rows / 2; ++pair) {
      const int8_t* codes = rows.codes + 2 * pair * rows.cols;
      kernels::pack_nibbles(codes, codes + rows.cols, rows.cols, packed_.data() + pair * rows.cols);
    }
    append(packed_.data(), packed_.size());
    for (int64_t row = 0; row < rows.rows; ++row) {
      scales_.push_back(std::bit_cast<uint32_t>(rows.scales[row]));
      bias_.push_back(
          8 * kernels::scaled_sum(rows.codes + row * rows.cols, rows.cols, rows.scales[row]));
    }
  }
  void finish(const Append& append) override {
    append(scales_.data(), scales_.size() * sizeof(uint64_t));
    append(bias_.data(), bias_.size() * sizeof(float));
  }

 private:
  std::vector<uint8_t> packed_;
  std::vector<uint64_t> scales_;
  std::vector<float> bias_;
};

/// The normalised Hadamard matrix of Sylvester, in BF16: element [i, j] is negative where i & j has
/// an odd number of bits.
std::string hadamard_bytes(int64_t size) {
  const auto count = static_cast<size_t>(size * size);
  std::vector<uint16_t> values;
  values.reserve(count);
  const float element = 1.0F / std::sqrt(static_cast<float>(size));
  uint16_t magnitude = 0;
  kernels::convert(&element, kernels::FloatType::f32, 1, kernels::FloatType::bf16, &magnitude);
  for (uint64_t i = 0; i < static_cast<uint64_t>(size); ++i) {
    for (uint64_t j = 0; j < static_cast<uint64_t>(size); ++j) {
      const bool negative = std::popcount(i & j) % 2 == 1;
      values.push_back(static_cast<uint16_t>(negative ? magnitude ^ 0x8000U : magnitude));
    }
  }
  std::string bytes(values.size() * sizeof(uint16_t), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string float_bytes(float value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, bytes.size());
  return bytes;
}

/// Where the clip of a weight's input is stored; empty where there is no place for it.
std::string clip_name(const OutputTensor& tensor) {
  if (tensor.role == "attention.kv_b_proj") {  // it reads the latent
    const std::string module = module_name(tensor);
    return module.substr(0, module.rfind('.') + 1) + "ckv_a_alpha";
  }
  return tensor.role.ends_with(".down_proj") ? module_name(tensor) + ".alpha" : std::string();
}

/// As the sample orders them within a layer; other linears come behind.
constexpr std::array<std::string_view, 8> kIgnoredRoles{
    "indexer.wk",          "indexer.weights_proj",
    "attention.kv_b_proj", "attention.kv_a_proj_with_mqa",
    "attention.q_a_proj",  "router",
    "mtp.eh_proj",         "lm_head"};

Json ignored(const OutputScheme& scheme) {
  std::vector<const OutputTensor*> tensors;
  for (const OutputTensor& tensor : scheme.tensors) {
    if (is_float_linear(tensor)) {
      tensors.push_back(&tensor);
    }
  }
  const auto rank = [](const OutputTensor* tensor) {
    const auto block = tensor->block < 0 ? std::numeric_limits<int64_t>::max() : tensor->block;
    return std::pair(block, std::ranges::find(kIgnoredRoles, tensor->role) - kIgnoredRoles.begin());
  };
  std::ranges::stable_sort(tensors, {}, rank);
  Json ignore = Json::array();
  for (const OutputTensor* tensor : tensors) {
    ignore.push_back(module_name(*tensor));
  }
  return ignore;
}

Json arguments(int bits, const char* strategy, const char* observer, bool dynamic) {
  return {{"actorder", nullptr},
          {"block_structure", nullptr},
          {"dynamic", dynamic},
          {"group_size", nullptr},
          {"num_bits", bits},
          {"observer", observer},
          {"observer_kwargs", Json::object()},
          {"strategy", strategy},
          {"symmetric", true},
          {"type", "int"}};
}

Json group(int bits, const char* target, bool clips) {
  return {{"input_activations", arguments(8, "token", "memoryless", /*dynamic=*/true)},
          {"activation_use_clip", clips},
          {"output_activations", nullptr},
          {"targets", {target}},
          {"weights", arguments(bits, "channel", "minmax", /*dynamic=*/false)}};
}

class AscendOutput final : public OutputFormat {
 public:
  std::string_view name() const override { return "ascend"; }

  std::vector<std::string> check_scheme(const OutputScheme& scheme) const override {
    std::vector<std::string> left_out;
    for (const OutputTensor& tensor : scheme.tensors) {
      if (tensor.quantized()) {
        check_weight(tensor);
      }
      if (scheme.clips.contains(tensor.name) && clip_name(tensor).empty()) {
        left_out.push_back(tensor.name);
      }
    }
    return left_out;
  }

  std::vector<TensorSpec> weight_specs(const OutputTensor& tensor) const override {
    if (tensor.weight_bits == 8) {
      return int8_specs(tensor);
    }
    const int64_t out = tensor.shape[0];
    const std::string module = module_name(tensor);
    return {{tensor.name, Dtype::i8, {out / 2, tensor.shape[1]}},
            {module + ".weight_scale", Dtype::u64, {out, 1}},
            {module + ".bias", Dtype::f32, {out}}};
  }

  std::unique_ptr<WeightEncoder> encoder(const OutputTensor& tensor) const override {
    return tensor.weight_bits == 8 ? int8_encoder() : std::make_unique<PackedEncoder>();
  }

  std::vector<ConstantTensor> constants(const OutputScheme& scheme) const override {
    std::vector<ConstantTensor> constants;
    for (const OutputTensor& tensor : scheme.tensors) {
      if (scheme.int8_cache && tensor.role == "indexer.wk") {
        const std::string module = module_name(tensor);
        const int64_t size = tensor.shape[0];
        check(size > 0 && (size & (size - 1)) == 0,
              "{}: a Hadamard matrix needs a power of two, found {} features", tensor.name, size);
        const std::string prefix = module.substr(0, module.rfind('.') + 1);
        constants.push_back({{prefix + std::string(kHadamard), Dtype::bf16, {size, size}},
                             hadamard_bytes(size),
                             tensor.name});
      }
      const std::string clip = clip_name(tensor);
      if (!scheme.clips.empty() && !clip.empty()) {
        const auto found = scheme.clips.find(tensor.name);
        const float factor = found == scheme.clips.end() ? 1.0F : found->second;
        constants.push_back({{clip, Dtype::f32, {1}}, float_bytes(factor), tensor.name});
      }
    }
    return constants;
  }

  Json quantization_config(const OutputScheme& scheme) const override {
    const auto has_bits = [&](int bits) {
      return std::ranges::any_of(scheme.tensors, [bits](const OutputTensor& tensor) {
        return tensor.weight_bits == bits;
      });
    };
    if (!has_bits(8) && !has_bits(4)) {
      return nullptr;
    }
    Json groups{{"group_0", group(8, "Linear", false)}};
    if (has_bits(4)) {
      groups["group_1"] = group(4, "MoEGMM", !scheme.clips.empty());
    }
    Json cache = nullptr;
    if (scheme.int8_cache) {
      cache = {{"num_bits", 8},       {"type", "int"},
               {"strategy", "group"}, {"group_size", scheme.cache_group},
               {"dynamic", true},     {"symmetric", true}};
    }
    return {{"config_groups", groups},
            {"format", "int-quantized"},
            {"global_compression_ratio", 1},
            {"ignore", ignored(scheme)},
            {"kv_cache_scheme", cache},
            {"quant_method", "compressed-tensors"},
            {"quantization_status", "compressed"}};
  }

 private:
  void check_weight(const OutputTensor& tensor) const {
    const bool expert = tensor.role.starts_with("expert.");
    check(tensor.activation_bits == 8 &&
              (tensor.weight_bits == 8 || (tensor.weight_bits == 4 && expert)),
          "--format {}: {}: expected 8-bit activations and weights of 8 bits (4 in routed "
          "experts), found {} and {}",
          name(), tensor.name, tensor.activation_bits, tensor.weight_bits);
    check(tensor.weight_bits == 8 || tensor.shape[0] % 2 == 0,
          "--format {}: {}: two rows of 4-bit codes share a byte, found {} rows", name(),
          tensor.name, tensor.shape[0]);
  }
};

}  // namespace

const Format& ascend_format() {
  static const AscendFormat kFormat;
  return kFormat;
}

const OutputFormat& ascend_output() {
  static const AscendOutput kFormat;
  return kFormat;
}

}  // namespace blockptq
