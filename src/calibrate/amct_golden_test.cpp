// The learning procedure against what the public DeepSeek-V3.2 sample learned from the same inputs
// (shared/golden). Training is chaotic: single factors differ, their distribution and the loss do
// not. The quantizers themselves, bit for bit: eval/quant_golden_test.cpp.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "base/test_models.h"
#include "calibrate/amct.h"
#include "calibrate/amct_unit.h"
#include "checkpoint/checkpoint.h"
#include "eval/test_support.h"
#include "models/families.h"

namespace blockptq {
namespace {

std::filesystem::path golden(const std::string& file) {
  return test_models() / "golden" / file;
}

/// The mean of a list in a golden .json.
double golden_mean(const std::string& unit, const char* key) {
  const auto path = golden(unit + ".json");
  const auto values = parse_json(read_file(path), path.string())[key].get<std::vector<double>>();
  return at::tensor(values, at::kDouble).mean().item<double>();
}

/// `learn()`, and its time per step in the output.
template <typename Learn>
AmctResult timed(const Learn& learn) {
  const auto start = std::chrono::steady_clock::now();
  AmctResult result = learn();
  const std::chrono::duration<double, std::milli> elapsed =
      std::chrono::steady_clock::now() - start;
  const auto steps =
      static_cast<double>(result.report.epoch_sums.size()) * double(result.report.sequences);
  fmt::print("{:.2f} ms a step, loss {:.6f} -> {:.6f}\n", elapsed.count() / steps,
             result.report.loss_before, result.report.loss_after);
  return result;
}

/// An MLP of the sample.
struct Unit {
  std::string file;
  std::string inputs;
  std::string recipe;
  std::string prefix;
  std::string role;
  bool clips_weights;
};

void PrintTo(const Unit& unit, std::ostream* stream) {
  *stream << unit.file;
}

class AmctGolden : public testing::TestWithParam<Unit> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(path())) {
      GTEST_SKIP() << GetParam().file << ": not found (BLOCKPTQ_TEST_MODELS)";
    }
  }
  std::filesystem::path path() const { return golden(GetParam().file + ".safetensors"); }
  Weight weight(const std::string& linear) const {
    return {GetParam().prefix + linear + ".weight", GetParam().role + "." + linear,
            load_tensor(path(), "weight." + linear).to(at::kFloat)};
  }
  nn::Mlp mlp() const { return {weight("gate_proj"), weight("up_proj"), weight("down_proj")}; }
  AmctOptions options() const {
    AmctOptions options;
    options.recipe = Recipe::preset(GetParam().recipe);
    return options;
  }
  /// The sample's names of clip logits by ours.
  std::map<std::string, std::string> names() const {
    const std::string& prefix = GetParam().prefix;
    std::map<std::string, std::string> names{
        {prefix + "gate_proj.input_clip", "afq_x.clip_factor_a_max"},
        {prefix + "down_proj.input_clip", "afq_down.clip_factor_a_max"}};
    for (const std::string linear : {"gate_proj", "up_proj", "down_proj"}) {
      for (const std::string side : {"max", "min"}) {
        if (GetParam().clips_weights) {
          names[prefix + linear + ".weight_clip_" + side] = linear + ".clip_factor_w_" + side;
        }
      }
    }
    return names;
  }
};

const std::string kExpert = "model.layers.3.mlp.experts.5.";
INSTANTIATE_TEST_SUITE_P(
    Units, AmctGolden,
    testing::Values(Unit{"expert5_layer3_w4", "expert_layer3", "w4a8c8", kExpert, "expert", true},
                    Unit{"expert5_layer3_w8", "expert_layer3", "w8a8c8", kExpert, "expert", true},
                    Unit{"dense_mlp_layer0_w8", "dense_mlp_layer0", "w8a8c8", "model.layers.0.mlp.",
                         "mlp", false}));

TEST_P(AmctGolden, FirstStep) {
  AmctOptions exact = options();
  exact.type = at::kFloat;
  const AmctMlp unit(mlp(), exact);
  const at::Tensor x = load_tensor(path(), "input");
  const at::Tensor targets = unit.targets(x);
  const at::Tensor expected = load_tensor(path(), "target_ref");
  EXPECT_LE(max_difference(targets.slice(1, 0, expected.size(1)), expected),
            1e-5 * expected.abs().max().item<double>());
  unit.backward(x, targets);
  const std::map<std::string, std::string> sample = names();
  ASSERT_EQ(unit.logits().size(), sample.size());
  for (const auto& [name, logits] : unit.logits()) {
    const at::Tensor gradient = load_tensor(path(), "grad0_fp32." + sample.at(name)).flatten();
    EXPECT_LE((logits.grad() - gradient).norm().item<double>(),
              1e-3 * gradient.norm().item<double>())
        << name;
  }
}

TEST_P(AmctGolden, LearnsWhatTheSampleLearns) {
  const at::Tensor inputs = load_tensor(golden("training_inputs.safetensors"), GetParam().inputs);
  const AmctResult result = timed([&] { return learn_mlp_amct(mlp(), inputs, options()); });
  const AmctReport& report = result.report;
  const auto expect_loss = [&](double found, const char* key, double tolerance) {
    const double expected = golden_mean(GetParam().file, key);
    EXPECT_NEAR(found, expected, tolerance * expected) << key;
  };
  expect_loss(report.loss_before, "loss_init_autocast", 0.005);
  expect_loss(report.loss_after, "loss_trained_autocast", 0.02);
  EXPECT_EQ(report.tokens, 20 * 512);
  ASSERT_EQ(report.epoch_sums.size(), 25U);
  const Json record = parse_json(read_file(golden(GetParam().file + ".json")), "golden");
  const auto expect_epoch = [&](double found, const char* key) {
    const auto expected = record["train_record"][key].get<double>();
    EXPECT_NEAR(found, expected, 0.02 * expected) << key;
  };
  expect_epoch(report.epoch_sums.front(), "first_epoch");
  expect_epoch(report.epoch_sums.back(), "last_epoch");

  ASSERT_EQ(result.parameters.size(), names().size());
  for (const auto& [name, sample] : names()) {
    const at::Tensor expected = load_tensor(path(), "trained." + sample).flatten();
    const at::Tensor found = result.parameters.at(name);
    EXPECT_LE(mean_difference(at::sigmoid(found), at::sigmoid(expected)), 0.02) << name;
  }
}

TEST(AmctAttentionGolden, LearnsTheClipOfTheLatent) {
  const auto folder = test_models() / "models/tiny-v32-bf16";
  if (!std::filesystem::exists(folder) || !std::filesystem::exists(golden("README.md"))) {
    GTEST_SKIP() << "tiny-v32-bf16: not found (BLOCKPTQ_TEST_MODELS)";
  }
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const auto model = open_model(checkpoint);
  PieceLoader loader(checkpoint, at::kFloat, at::kCPU);
  const Piece piece = loader.load(block_pieces(model->tensors(), 1, 2).front());
  AmctOptions options;
  options.recipe = Recipe::preset("w8a8c8");
  options.epochs = 5;  // of 25: the clip has arrived
  const at::Tensor inputs = load_tensor(golden("training_inputs.safetensors"), "mla_layer1");
  const AmctResult result =
      timed([&] { return learn_attention_amct(*model, piece, 1, inputs, options); });
  ASSERT_EQ(result.parameters.size(), 1U);
  const auto& [name, logit] = *result.parameters.begin();
  EXPECT_EQ(name, "model.layers.1.self_attn.kv_b_proj.input_clip");
  // The sample's other quantizers are off in attention (losses differ); its clip ends where the
  // largest code would be rounded out of range, 127 / 127.5.
  EXPECT_NEAR(at::sigmoid(logit).item<double>(), 127 / 127.5, 1e-3);
  EXPECT_LT(result.report.loss_after, result.report.loss_before);
}

}  // namespace
}  // namespace blockptq
