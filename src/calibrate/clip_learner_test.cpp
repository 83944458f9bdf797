#include "calibrate/clip_learner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace blockptq {
namespace {

TEST(InputClip, IsTheFactorOfTheLeastError) {
  const std::vector<double> factors = tried_input_factors(8);
  EXPECT_EQ(factors.front(), 1);
  EXPECT_EQ(factors[1], 127 / 127.5);
  std::vector<double> errors(factors.size(), 1);
  EXPECT_FALSE(best_input_clip(errors, 8).defined());
  errors[4] = 0.5;
  EXPECT_NEAR(at::sigmoid(best_input_clip(errors, 8)).item<double>(), factors[4], 1e-6);
}

/// Weights in fp32, all tokens, nothing else quantized than down's 4 bits and its input's 8: the
/// error of every output channel can be computed here.
TEST(LearnClips, NoChannelOfDownGetsWorse) {
  at::manual_seed(5);
  const auto weight = [](const char* name, int64_t rows, int64_t cols) {
    return Weight{std::string("x.") + name + ".weight", std::string("expert.") + name,
                  at::randn({rows, cols})};
  };
  const nn::Mlp mlp{weight("gate_proj", 24, 32), weight("up_proj", 24, 32),
                    weight("down_proj", 32, 24)};
  const Recipe recipe = Recipe::preset("w4a8c8");
  const Json algorithm{{"name", "nearest"}};
  const Json no_refinement{{"name", "none"}};
  const CalibrationContext context{recipe, algorithm, at::kFloat, {}, no_refinement};
  const FakeQuantExec exec(recipe);
  const at::Tensor x = at::randn({256, 32});
  const TokenSource tokens{1, [&](int64_t) { return TokenSlice{x, x, {}, true}; }, x.size(0)};
  UnitResult result = plain_rounding(context, {mlp.down});
  const at::Tensor y = mlp.forward(context.float_exec, x);
  const auto errors = [&] {
    nn::Mlp student = mlp;
    student.down.value = result.weights.at(mlp.down.name).dequantize(at::kFloat);
    return (student.forward(exec, x) - y).square().sum(0);
  };
  const at::Tensor before = errors();
  learn_clips(context, exec, mlp, tokens, ClipLearnerOptions(), result);
  const at::Tensor after = errors();
  EXPECT_TRUE((after <= before * 1.001).all().item<bool>());
  EXPECT_LT(after.sum().item<double>(), 0.9 * before.sum().item<double>());
  EXPECT_EQ(result.weights.size(), 1U) << "what is not quantized stays so";
}

}  // namespace
}  // namespace blockptq
