// Deployed folders in integers against their floating-point twins.
#include "eval/deployed.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/test_models.h"
#include "checkpoint/test_support.h"
#include "eval/evaluate.h"
#include "eval/test_support.h"
#include "models/families.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;
using testing_support::TempDir;
using testing_support::TestTensor;

const std::filesystem::path kProject = BLOCKPTQ_SOURCE_DIR;
const std::filesystem::path kSource = kProject / "models/tiny-v32-fp8";

TestTensor tensor_of(const std::string& name, Dtype dtype, const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  return {{name, dtype, dense.sizes().vec()},
          {static_cast<const char*>(dense.const_data_ptr()), dense.nbytes()}};
}

Json group(int bits, const char* target, const char* strategy) {
  return {{"targets", {target}},
          {"weights", {{"num_bits", bits}, {"type", "int"}, {"strategy", "channel"}}},
          {"input_activations",
           {{"num_bits", 8}, {"type", "int"}, {"strategy", strategy}, {"dynamic", true}}}};
}

/// The tiny model by plain rounding of `recipe`.
void write_deployed(const std::filesystem::path& folder, const Recipe& recipe,
                    const char* strategy = "token") {
  const Checkpoint source = Checkpoint::open(kSource);
  const auto model = open_model(source);
  std::map<std::string, int> bits;
  for (const ModelTensor& tensor : model->tensors()) {
    bits[tensor.name] = recipe.linear(tensor.role, tensor.name).weight_bits;
  }
  std::vector<TestTensor> tensors;
  for (const StoredTensor& stored : source.tensors()) {
    at::Tensor value = at::empty(stored.shape, at::kFloat);
    source.decode(stored, kernels::FloatType::f32, value.mutable_data_ptr());
    if (const int b = bits[stored.name]; value.dim() == 2 && b != kFloatBits) {
      const QTensor q = quantize_weight(value, b, weight_scales(value, b));
      tensors.push_back(tensor_of(stored.name, Dtype::i8, q.codes_OI));
      tensors.push_back(tensor_of(stored.name + "_scale", Dtype::f32, q.scales_O.unsqueeze(1)));
    } else {
      tensors.push_back(tensor_of(stored.name, Dtype::f32, value));
    }
  }
  testing_support::write_shard(folder / "model.safetensors", tensors);
  const int expert_bits = recipe.linear("expert.up_proj", "any").weight_bits;
  Json config = source.config();
  config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "int-quantized"},
      {"config_groups",
       {{"group_0", group(8, "Linear", strategy)},
        {"group_1", group(expert_bits, "re:.*mlp\\.experts\\.\\d+\\..*", strategy)}}}};
  testing_support::write_text(folder / "config.json", config.dump());
}

/// A folder and its model.
struct Opened {
  explicit Opened(const std::filesystem::path& folder)
      : checkpoint(Checkpoint::open(folder)), model(open_model(checkpoint)) {}

  Subject subject(const DeployedOptions& options) const {
    return {checkpoint, *model, deployed_arithmetic(checkpoint, *model, options)};
  }

  Checkpoint checkpoint;
  std::unique_ptr<Model> model;
};

EvalResult run(const Subject& subject, const Subject* reference = nullptr) {
  const auto path = kSource / "reference/ref_tokens.json";
  const auto tokens = parse_json(read_file(path), path.string()).get<std::vector<int32_t>>();
  constexpr int64_t kLength = 512;  // the indexer selects
  TokenWindows windows;
  windows.seq_len = kLength;
  windows.ids.assign(tokens.begin(), tokens.begin() + 2 * kLength);
  EvalOptions options;
  options.type = at::kFloat;
  NoProgress progress;
  return evaluate(subject, reference, windows, options, progress);
}

void expect_integers_as_twin(const Opened& opened, bool int8_cache) {
  const Subject twin = opened.subject({.fake_quant = true, .int8_cache = int8_cache});
  const Subject integers = opened.subject({.fake_quant = false, .int8_cache = int8_cache});
  const EvalResult expected = run(twin);
  const EvalResult found = run(integers, &twin);
  EXPECT_LE(std::abs(*found.ppl / *expected.ppl - 1), 1e-3);
  EXPECT_LE(std::abs(*found.kl), 1e-4);
  const Subject plain{opened.checkpoint, *opened.model, float_arithmetic()};
  EXPECT_GT(*run(integers, &plain).kl, *found.kl);  // activations are quantized
}

TEST(Deployed, IntegersEqualTheTwin) {
  for (const char* quant_type : {"w8a8c8", "w4a8c8"}) {
    SCOPED_TRACE(quant_type);
    const TempDir folder;
    write_deployed(folder.path(), Recipe::preset(quant_type));
    const Opened opened(folder.path());
    expect_integers_as_twin(opened, /*int8_cache=*/true);
    expect_integers_as_twin(opened, /*int8_cache=*/false);
  }
}

TEST(Deployed, OnlyFp32MultipliesExactValues) {
  const TempDir folder;
  write_deployed(folder.path(), Recipe::preset("w8a8c8"));
  const Opened opened(folder.path());
  const auto holds_integers = [&](at::ScalarType type) {
    return static_cast<bool>(
        opened.subject({.fake_quant = true, .type = type}).arithmetic.integers);
  };
  EXPECT_TRUE(holds_integers(at::kFloat));
  EXPECT_FALSE(holds_integers(at::kBFloat16));
}

TEST(Deployed, AFolderOfLlmCompressor) {
  const auto folder = test_models() / "models/tiny-v32-llmcompressor-w4a8";
  if (!std::filesystem::exists(folder)) {
    GTEST_SKIP() << folder << ": not found (BLOCKPTQ_TEST_MODELS)";
  }
  const Opened opened(folder);
  ASSERT_TRUE(is_deployed(opened.checkpoint));
  EXPECT_EQ(quant_type(deployed_recipe(opened.checkpoint, *opened.model, {}), *opened.model),
            "w4a8c8");
  expect_integers_as_twin(opened, true);
}

TEST(Deployed, TheRecipeIsReadFromTheFolder) {
  const TempDir folder;
  // One weight stays in floating point although its role is quantized.
  const std::string exception = "model.layers.3.mlp.experts.5.up_proj.weight";
  write_deployed(folder.path(), Recipe::preset("w4a8c8").with_rule(
                                    {{"name", exception}, {"weight_bits", kFloatBits}}));
  const Opened opened(folder.path());
  const auto read = [&](const DeployedOptions& options) {
    return deployed_recipe(opened.checkpoint, *opened.model, options);
  };
  const Recipe recipe = read({});
  EXPECT_EQ(recipe.linear("expert.up_proj", "any").weight_bits, 4);
  EXPECT_EQ(recipe.linear("expert.up_proj", "any").activation_bits, 8);
  EXPECT_EQ(recipe.linear("expert.up_proj", exception).activation_bits, kFloatBits);
  EXPECT_EQ(recipe.linear("attention.o_proj", "any").weight_bits, 8);
  EXPECT_EQ(recipe.linear("attention.q_a_proj", "any").activation_bits, kFloatBits);
  EXPECT_EQ(recipe.cache("kv_latent"), (CacheScheme{8, 128, false}));
  EXPECT_EQ(read({.int8_cache = false}).cache("kv_latent").bits, kFloatBits);
  testing_support::write_text(folder / "blockptq.json", R"({"cache":"c16"})");
  EXPECT_EQ(quant_type(read({}), *opened.model), "w4a8c16");
  EXPECT_EQ(quant_type(read({.int8_cache = true}), *opened.model), "w4a8c8");
  testing_support::write_text(folder / "blockptq.json", R"({"cache":"c4"})");
  EXPECT_THAT(refusal([&] { read({}); }), HasSubstr("expected c8 or c16"));
  const Arithmetic arithmetic =
      deployed_arithmetic(opened.checkpoint, *opened.model, {.int8_cache = true});
  PieceLoader loader(opened.checkpoint, at::kFloat, at::kCPU, {}, arithmetic.integers);
  for (const ModelTensor& tensor : opened.model->tensors()) {
    if (tensor.name == exception) {
      EXPECT_FALSE(loader.load({{{tensor}}}).weight(exception).integers);
    }
  }
}

TEST(Deployed, RefusesOtherActivations) {
  const TempDir folder;
  write_deployed(folder.path(), Recipe::preset("w4a8c8"), "tensor");
  const Opened opened(folder.path());
  EXPECT_TRUE(is_deployed(opened.checkpoint));
  EXPECT_THAT(refusal([&] { opened.subject({}); }), HasSubstr("dynamic scale per token"));
}

TEST(Deployed, SourcesAreNot) {
  EXPECT_FALSE(is_deployed(Checkpoint::open(kSource)));
}

TEST(Deployed, WeightsStayIntegersOfTheirSize) {
  const TempDir folder;
  write_deployed(folder.path(), Recipe::preset("w4a8c8"));
  const Opened opened(folder.path());
  const Arithmetic arithmetic = deployed_arithmetic(opened.checkpoint, *opened.model, {});
  PieceLoader loader(opened.checkpoint, at::kBFloat16, at::kCPU, {}, arithmetic.integers);
  PieceLoader decoded(opened.checkpoint, at::kFloat, at::kCPU);
  for (const PieceSpec& spec : block_pieces(opened.model->tensors(), 2, 3)) {
    const Piece piece = loader.load(spec);
    const Piece values = decoded.load(spec);
    for (const Weight& weight : piece.weights()) {
      if (weight.integers) {
        const at::Tensor expected = values.tensor(weight.name);
        const StoredTensor& stored = opened.checkpoint.at(weight.name);
        const auto ones = at::eye(weight.integers->inputs).to(at::kChar);
        const at::Tensor found =
            int_linear({ones, at::ones({ones.size(0), 1})}, *weight.integers, at::kFloat).t();
        EXPECT_TRUE(at::equal(found, expected)) << weight.name;
        EXPECT_EQ(weight.integers->codes.nbytes() * 8,
                  static_cast<size_t>(expected.numel() * stored.bits));
      }
    }
    EXPECT_EQ(std::ranges::any_of(piece.weights(), [](const Weight& w) { return !!w.integers; }),
              true);
  }
}

}  // namespace
}  // namespace blockptq
