// The pieces of calibration against closed forms.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "calibrate/mlp_unit.h"
#include "calibrate/routed_tokens.h"
#include "calibrate/statistics.h"
#include "nn/norm.h"

namespace blockptq {
namespace {

Weight weight(const std::string& name, int64_t rows, int64_t cols) {
  return {
      .name = name + ".weight", .role = "expert." + name, .value = at::randn({rows, cols}) * 0.3};
}

nn::Mlp make_mlp(int64_t hidden, int64_t inner) {
  return {weight("gate_proj", inner, hidden), weight("up_proj", inner, hidden),
          weight("down_proj", hidden, inner)};
}

/// Correlated inputs: rounding errors can be made to cancel.
at::Tensor correlated(int64_t tokens, int64_t features, const at::Tensor& mix) {
  return at::mm(at::randn({tokens, features / 4}), mix) + 0.1 * at::randn({tokens, features});
}

TEST(Statistics, SumsAreThoseOfTheDefinition) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({5, 3});
  const at::Tensor y = at::randn({5, 3});
  const at::Tensor g = at::tensor({0.5F, 0.F, 2.F, 1.F, 0.25F});
  StatisticsSum sum(/*hessian=*/true, /*cross=*/true);
  sum.add(x.slice(0, 0, 2), y.slice(0, 0, 2), g.slice(0, 0, 2));
  sum.add(x.slice(0, 2), y.slice(0, 2), g.slice(0, 2));
  at::Tensor h = at::zeros({3, 3});
  at::Tensor c = at::zeros({3, 3});
  double chance = 0;
  for (int64_t t = 0; t < 5; ++t) {
    const at::Tensor difference = x[t] - y[t];
    h += g[t].square() * at::outer(y[t], y[t]);
    c += g[t].square() * at::outer(difference, y[t]);
    chance += (g[t].pow(4) * difference.square().sum() * y[t].square().sum()).item<double>();
  }
  EXPECT_EQ(sum.tokens(), 4);
  const InputStatistics result = sum.take().front();
  EXPECT_TRUE(at::allclose(result.hessian_II, h, 1e-5, 1e-6));
  const double kept = 1 - chance / c.square().sum().item<double>();
  EXPECT_TRUE(at::allclose(result.cross_II, c * std::max(kept, 0.0), 1e-4, 1e-5));
}

TEST(Statistics, WhatChanceGivesIsNoCorrection) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({400, 40});
  const auto cross_norm = [&](const at::Tensor& other) {
    StatisticsSum sum(/*hessian=*/true, /*cross=*/true);
    sum.add(other, x, {});
    return sum.take().front().cross_II.norm().item<double>();
  };
  const double raw = at::matmul(at::randn({40, 400}), x).norm().item<double>();
  EXPECT_LT(cross_norm(x + at::randn({400, 40})), 0.2 * raw);
  EXPECT_NEAR(cross_norm(1.5 * x) / (0.5 * at::matmul(x.t(), x)).norm().item<double>(), 1, 0.15);
}

TEST(Statistics, WideInputsAreTakenInGroups) {
  EXPECT_THAT(feature_groups(8192), testing::ElementsAre(8192));
  EXPECT_THAT(feature_groups(8193), testing::ElementsAre(2048, 2048, 2048, 2048, 1));
  EXPECT_EQ(statistics_bytes(9000), 4 * (4 * 2048 * 2048 + 808 * 808));
  const at::Tensor x = at::randn({3, 8200});
  StatisticsSum sum(/*hessian=*/true, /*cross=*/true);
  sum.add(x, 0.5 * x, {});
  const GroupedStatistics result = sum.take();
  ASSERT_EQ(result.size(), 5U);
  const at::Tensor last_TJ = x.slice(1, 8192);
  EXPECT_TRUE(at::allclose(result[4].hessian_II, at::matmul(last_TJ.t(), last_TJ) / 4, 1e-5, 1e-6));
}

TEST(RoutedTokens, EitherModelSendsATokenToTheExpert) {
  FeedForwardText text;
  text.float_ND = at::randn({4, 8});
  text.quant_ND = text.float_ND.clone();
  text.float_out_ND = at::zeros({4, 8});
  text.quant_out_ND = at::zeros({4, 8});
  text.float_routing = {at::tensor({0, 1, 1, 2, 2, 0, 1, 2}, at::kLong).view({4, 2}),
                        at::full({4, 2}, 0.5)};
  text.quant_routing = {at::tensor({0, 1, 1, 0, 2, 1, 1, 2}, at::kLong).view({4, 2}),
                        at::full({4, 2}, 0.25)};
  std::vector<FeedForwardText> texts{text};
  const auto rows = expert_rows(texts, 0, 100);
  ASSERT_EQ(rows.size(), 1);
  EXPECT_TRUE(at::equal(rows[0].tokens_T, at::tensor({0, 1, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(rows[0].float_weight_T, at::tensor({0.5F, 0.F, 0.5F})));
  EXPECT_TRUE(at::equal(rows[0].quant_weight_T, at::tensor({0.25F, 0.25F, 0.F})));
  const at::Tensor ones = at::ones({3, 8});
  add_outputs(texts, rows)(0, ones, ones);
  EXPECT_TRUE(at::equal(texts[0].float_out_ND.select(1, 0), at::tensor({0.5F, 0.F, 0.5F, 0.F})));
  EXPECT_TRUE(at::equal(texts[0].quant_out_ND.select(1, 0), at::tensor({0.25F, 0.25F, 0.F, 0.F})));
}

struct Method {
  const char* algorithm;
  const char* refinement;
};

class MlpUnit : public testing::TestWithParam<Method> {};

TEST_P(MlpUnit, IsBetterThanPlainRoundingOnTokensItDidNotSee) {
  at::manual_seed(3);
  const nn::Mlp mlp = make_mlp(32, 24);
  const at::Tensor mix = at::randn({8, 32});
  const auto source = [&](const at::Tensor& x) {
    return TokenSource{1, [x](int64_t) { return TokenSlice{x, x, {}, true}; }, x.size(0)};
  };
  const Recipe recipe = Recipe::preset("w4a8c8");
  const Method& method = GetParam();
  const Json algorithm{{"name", method.algorithm}};
  const Json refinement{{"name", method.refinement}};
  const CalibrationContext context{recipe, algorithm, at::kFloat, {}, refinement};
  const FakeQuantExec exec(recipe);
  const UnitResult result =
      calibrate_mlp(context, exec, mlp, {}, source(correlated(2048, 32, mix)), nullptr);
  EXPECT_EQ(result.weights.size(), 3);
  EXPECT_EQ(result.report.tokens, 2048);
  EXPECT_LT(result.report.loss_after, 0.9 * result.report.loss_before);
  const UnitResult nearest = plain_rounding(context, {mlp.gate, mlp.up, mlp.down});
  const TokenSource fresh = source(correlated(512, 32, mix));
  const auto error = [&](const UnitResult& chosen) {
    RelativeError sum;
    run_mlp(context, mlp, chosen, fresh,
            [&](int64_t, const at::Tensor& y, const at::Tensor& q) { sum.add(q, y, {}); });
    return sum.value();
  };
  EXPECT_LT(error(result), 0.9 * error(nearest));
}

INSTANTIATE_TEST_SUITE_P(Algorithms, MlpUnit,
                         testing::Values(Method{"scale_search", "none"}, Method{"gptq", "none"},
                                         Method{"scale_search", "learned_clip"},
                                         Method{"gptq", "learned_round"}),
                         [](const auto& method) {
                           return std::string(method.param.algorithm) + "_" +
                                  method.param.refinement;
                         });

TEST(MlpUnit, WithoutTokensRoundsPlainlyAndSaysSo) {
  const nn::Mlp mlp = make_mlp(16, 8);
  const Recipe recipe = Recipe::preset("w4a8c8");
  const Json algorithm{{"name", "gptq"}};
  const Json refinement{{"name", "learned_round"}};
  const CalibrationContext context{recipe, algorithm, at::kFloat, {}, refinement};
  const UnitResult result =
      calibrate_mlp(context, FakeQuantExec(recipe), mlp, {}, TokenSource{0, nullptr}, nullptr);
  EXPECT_EQ(result.report.fallback, "no tokens");
  for (const auto& [name, codes] : plain_rounding(context, {mlp.gate, mlp.up, mlp.down}).weights) {
    EXPECT_TRUE(at::equal(result.weights.at(name).codes_OI, codes.codes_OI));
  }
}

}  // namespace
}  // namespace blockptq
