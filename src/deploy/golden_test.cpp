// The ascend layout against what the public DeepSeek-V3.2 sample wrote.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/test_models.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/formats/output_format.h"
#include "deploy/plan.h"
#include "kernels/convert.h"
#include "kernels/nibbles.h"
#include "models/families.h"
#include "quant/qtensor.h"

namespace blockptq {
namespace {

/// A BF16 or F32 tensor of a file, in its type.
at::Tensor load(const std::string& file, const std::string& name) {
  const SafetensorsFile golden(test_models() / "golden" / file);
  const TensorInfo& info = golden.at(name);
  const bool bf16 = info.dtype == Dtype::bf16;
  check(bf16 || info.dtype == Dtype::f32, "a test asked for {}", dtype_name(info.dtype));
  at::Tensor tensor = at::empty(info.shape, bf16 ? at::kBFloat16 : at::kFloat);
  const TensorBytes bytes = golden.read(info);
  std::copy_n(bytes.data(), bytes.size(), static_cast<uint8_t*>(tensor.mutable_data_ptr()));
  return tensor;
}

// --- names, dtypes and shapes ---

struct Manifest {
  std::string name;        ///< e.g. "fp8_w4a8c8"
  std::string model;       ///< below models/
  std::string quant_type;  ///< the recipe that says the same
  bool clips;              ///< the sample wrote learned clips under C8
};

void PrintTo(const Manifest& manifest, std::ostream* stream) {
  *stream << manifest.name;
}

/// A learned clip for every place that the sample has one in.
SiteFactors clips_everywhere(const Model& model) {
  SiteFactors clips;
  for (const ModelTensor& tensor : model.tensors()) {
    if (tensor.role == "attention.kv_b_proj" || tensor.role.ends_with(".down_proj")) {
      clips[tensor.name] = at::full({1}, 0.9F);
    }
  }
  return clips;
}

class GoldenManifest : public testing::TestWithParam<Manifest> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(test_models() / "golden")) {
      GTEST_SKIP() << GetParam().name << ": not found (BLOCKPTQ_TEST_MODELS)";
    }
    source_.emplace(Checkpoint::open(test_models() / "models" / GetParam().model));
    const auto model = open_model(*source_);
    const Recipe recipe =
        GetParam().quant_type.empty() ? Recipe() : Recipe::preset(GetParam().quant_type);
    plan_ = plan_output(*source_, *model, recipe, output_format("ascend"),
                        GetParam().clips ? clips_everywhere(*model) : SiteFactors(), 5'000'000'000);
  }
  Json golden_json(const std::string& kind) const {
    const std::filesystem::path path =
        test_models() / "golden" / fmt::format("deploy_from_{}.{}.json", GetParam().name, kind);
    return parse_json(read_file(path), path.string());
  }

  std::optional<Checkpoint> source_;
  OutputPlan plan_;
};

// The sample quantizes even for bfloat16 when the source is BF16; so that pair is left out.
INSTANTIATE_TEST_SUITE_P(
    Types, GoldenManifest,
    testing::Values(Manifest{"fp8_bfloat16", "tiny-v32-fp8", "", false},
                    Manifest{"fp8_w8a8c16", "tiny-v32-fp8", "w8a8c16", false},
                    Manifest{"fp8_w8a8c8", "tiny-v32-fp8", "w8a8c8", true},
                    Manifest{"fp8_w4a8c16", "tiny-v32-fp8", "w4a8c16", false},
                    Manifest{"fp8_w4a8c8", "tiny-v32-fp8", "w4a8c8", true},
                    Manifest{"bf16_w8a8c16", "tiny-v32-bf16", "w8a8c16", false},
                    Manifest{"bf16_w8a8c8", "tiny-v32-bf16", "w8a8c8", true},
                    Manifest{"bf16_w4a8c16", "tiny-v32-bf16", "w4a8c16", false},
                    Manifest{"bf16_w4a8c8", "tiny-v32-bf16", "w4a8c8", true}),
    [](const auto& param_info) { return param_info.param.name; });

std::string torch_name(Dtype dtype) {
  const std::map<Dtype, std::string> names = {{Dtype::i8, "torch.int8"},
                                              {Dtype::f32, "torch.float32"},
                                              {Dtype::bf16, "torch.bfloat16"},
                                              {Dtype::u64, "torch.uint64"}};
  return names.at(dtype);
}

/// What the sample should have written in the place of what it wrote.
Json without_defects(Json manifest) {
  manifest["model.embed_tokens.weight"] = {"torch.bfloat16", {4096, 256}};  // dropped
  for (auto& [name, entry] : manifest.items()) {
    if (name.ends_with("alpha")) {  // BF16 or rank 0 in some layers
      entry = {"torch.float32", {1}};
    } else if (name.ends_with("hadamard_matrix")) {  // 128, whatever index_head_dim is
      entry = {"torch.bfloat16", {64, 64}};
    }
  }
  return manifest;
}

TEST_P(GoldenManifest, NamesTypesAndShapes) {
  Json found = Json::object();
  for (const PlannedShard& shard : plan_.shards) {
    for (const TensorSpec& spec : plan_.specs(shard)) {
      found[spec.name] = {torch_name(spec.dtype), spec.shape};
    }
  }
  Json expected = Json::object();
  const Json manifest = golden_json("manifest");
  for (const auto& [name, entry] : manifest.items()) {
    expected[name] = {entry[1], entry[2]};  // file, dtype, shape, hash
  }
  EXPECT_EQ(Json::diff(without_defects(expected), found), Json::array());
}

TEST_P(GoldenManifest, QuantizationConfig) {
  Json expected = golden_json("config").value("quantization_config", Json());
  if (expected.is_object() && expected["kv_cache_scheme"].is_object()) {
    // The cache holds integers, and booleans are real ones.
    expected["kv_cache_scheme"].update({{"type", "int"}, {"dynamic", true}, {"symmetric", true}});
  }
  EXPECT_EQ(Json::diff(expected, plan_.format->quantization_config(plan_.scheme)), Json::array());
}

// --- bytes ---

/// Scales and codes of a BF16 weight as the sample's deploy.py computes them with a learned factor.
QTensor sample_quantize(const at::Tensor& w_OI, const at::Tensor& factor_O1, int bits) {
  const at::Tensor absmax_O1 = w_OI.abs().amax(1, /*keepdim=*/true) * factor_O1;
  const at::Tensor scale_O1 = absmax_O1 / q_max(bits);
  const at::Tensor codes_OI = at::round(w_OI / scale_O1).clamp(-q_max(bits), q_max(bits));
  return {codes_OI.to(at::kChar), scale_O1.squeeze(1).contiguous(), bits};
}

TEST(GoldenBytes, Expert5OfBlock3) {
  if (!std::filesystem::exists(test_models() / "golden")) {
    GTEST_SKIP() << "golden: not found (BLOCKPTQ_TEST_MODELS)";
  }
  const std::string unit = "expert5_layer3_w4.safetensors";
  const SafetensorsFile golden(test_models() / "golden/deploy_from_bf16_w4a8c8.subset.safetensors");
  for (const std::string linear : {"gate_proj", "up_proj", "down_proj"}) {
    const at::Tensor w_OI = load(unit, "weight." + linear + ".linear.weight");
    const at::Tensor factor_O1 =
        at::sigmoid(load(unit, "trained." + linear + ".clip_factor_w_max"));
    const QTensor q = sample_quantize(w_OI, factor_O1, 4);
    const OutputTensor tensor{"model.layers.3.mlp.experts.5." + linear + ".weight",
                              "expert." + linear,
                              w_OI.sizes().vec(),
                              3,
                              4,
                              8};
    std::string found;
    const auto append = [&](const void* data, size_t size) {
      found.append(static_cast<const char*>(data), size);
    };
    const auto encoder = output_format("ascend").encoder(tensor);
    encoder->add({q.codes_OI.const_data_ptr<int8_t>(), q.scales_O.const_data_ptr<float>(),
                  w_OI.size(0), w_OI.size(1)},
                 append);
    encoder->finish(append);
    for (const TensorSpec& spec : output_format("ascend").weight_specs(tensor)) {
      const TensorBytes expected = golden.read(golden.at(spec.name));
      const std::string part = found.substr(0, static_cast<size_t>(expected.size()));
      EXPECT_TRUE(
          std::equal(part.begin(), part.end(), reinterpret_cast<const char*>(expected.data())))
          << spec.name;
      found.erase(0, part.size());
    }
    EXPECT_TRUE(found.empty());
  }
}

TEST(ScaledSum, IsAtensSum) {
  at::manual_seed(0);
  for (const int64_t cols : {8, 9, 31, 33, 127, 128, 256, 511, 2048, 7168, 16384, 18432}) {
    const at::Tensor codes_OI = at::randint(-8, 8, {4, cols}, at::kChar);
    const at::Tensor scales_O = at::rand({4}) + 0.01;
    const at::Tensor expected = (codes_OI.to(at::kFloat) * scales_O.unsqueeze(1)).sum(1);
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_EQ(kernels::scaled_sum(codes_OI.const_data_ptr<int8_t>() + row * cols, cols,
                                    scales_O[row].item<float>()),
                expected[row].item<float>())
          << cols;
    }
  }
}

}  // namespace
}  // namespace blockptq
