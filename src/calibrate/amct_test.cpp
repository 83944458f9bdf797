#include "calibrate/amct.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace blockptq {
namespace {

nn::Mlp random_mlp(const std::string& role) {
  const auto weight = [&](const char* name, int64_t rows, int64_t cols) {
    return Weight{std::string("x.") + name + ".weight", role + "." + name,
                  at::randn({rows, cols}) / std::sqrt(static_cast<double>(cols))};
  };
  return {weight("gate_proj", 24, 32), weight("up_proj", 24, 32), weight("down_proj", 32, 24)};
}

AmctOptions short_options() {
  AmctOptions options;
  options.recipe = Recipe::preset("w4a8c8");
  options.epochs = 3;
  return options;
}

std::vector<std::string> names_of(const AmctResult& result) {
  std::vector<std::string> names;
  for (const auto& [name, value] : result.parameters) {
    names.push_back(name);
  }
  return names;
}

TEST(Amct, LearnsFewerErrors) {
  const at::Tensor inputs = at::randn({4, 16, 32});
  AmctOptions options = short_options();
  options.epochs = 25;
  const AmctResult result = learn_mlp_amct(random_mlp("expert"), inputs, options);
  EXPECT_EQ(result.report.tokens, 64);
  EXPECT_EQ(result.report.epoch_sums.size(), 25U);
  EXPECT_LT(result.report.loss_after, 0.95 * result.report.loss_before);
  EXPECT_NEAR(result.report.epoch_sums.back() / 4, result.report.loss_after,
              0.2 * result.report.loss_after);
  EXPECT_EQ(names_of(result),
            (std::vector<std::string>{"x.down_proj.input_clip", "x.down_proj.weight_clip_max",
                                      "x.down_proj.weight_clip_min", "x.gate_proj.input_clip",
                                      "x.gate_proj.weight_clip_max", "x.gate_proj.weight_clip_min",
                                      "x.up_proj.weight_clip_max", "x.up_proj.weight_clip_min"}));
  EXPECT_EQ(result.parameters.at("x.down_proj.weight_clip_min").sizes(), at::IntArrayRef({32}));
}

TEST(Amct, BatchesShareAStep) {
  AmctOptions options = short_options();
  const at::Tensor inputs = at::randn({3, 16, 32});
  options.epochs = 1;
  options.bsz = 2;
  const AmctResult result = learn_mlp_amct(random_mlp("expert"), inputs, options);
  // Two steps of Adam at rates 0.1 and about 0.05: every logit moves by at most that.
  for (const auto& [name, logits] : result.parameters) {
    EXPECT_LE((logits - 4).abs().max().item<double>(), 0.16) << name;
  }
  EXPECT_NEAR(result.report.epoch_sums.front() / 3, result.report.loss_before,
              0.2 * result.report.loss_before);
}

TEST(Amct, WhatIsNotLearnedStaysAtItsStart) {
  const at::Tensor inputs = at::randn({2, 16, 32});
  AmctOptions options = short_options();
  options.lac = false;
  const AmctResult weights = learn_mlp_amct(random_mlp("expert"), inputs, options);
  EXPECT_EQ(weights.parameters.at("x.gate_proj.input_clip").item<float>(), 4.0F);
  EXPECT_GT((weights.parameters.at("x.gate_proj.weight_clip_max") - 4).abs().max().item<float>(),
            0.0F);

  const AmctResult dense = learn_mlp_amct(random_mlp("mlp"), inputs, options);
  EXPECT_EQ(names_of(dense),
            (std::vector<std::string>{"x.down_proj.input_clip", "x.gate_proj.input_clip"}));
  EXPECT_TRUE(dense.report.epoch_sums.empty()) << "nothing to learn";
  EXPECT_EQ(dense.report.loss_after, dense.report.loss_before);
}

TEST(Amct, ConstantZeroHasNothingToLearn) {
  nn::Mlp mlp = random_mlp("expert");
  mlp.down.value.zero_();
  const AmctResult result = learn_mlp_amct(mlp, at::randn({2, 16, 32}), short_options());
  EXPECT_EQ(result.report.loss_after, 0);
  for (const auto& [name, logits] : result.parameters) {
    EXPECT_TRUE(at::equal(logits, at::full_like(logits, 4))) << name;
  }
}

TEST(Amct, LossThatIsNotFinite) {
  at::Tensor inputs = at::randn({2, 16, 32});
  inputs[1][3][5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(learn_mlp_amct(random_mlp("expert"), inputs, short_options()), Error);
}

}  // namespace
}  // namespace blockptq
