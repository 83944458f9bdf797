#include "quant/algorithms/gptq.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "quant/algorithms/nearest.h"
#include "quant/algorithms/scale_search.h"
#include "quant/algorithms/test_support.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

GptqOptions plain_options() {
  GptqOptions options;
  options.scales = 1;
  options.sweeps = 0;
  return options;
}

QTensor gptq_of(const at::Tensor& w_OI, int bits, const InputStatistics& input,
                const GptqOptions& options = {}) {
  return gptq({w_OI}, bits, {input}, options).front();
}

/// Algorithm 1 of arXiv 2210.17323 as its section 3 derives it, in fp64: the inverse Hessian of the
/// features left, one feature eliminated after the other.
at::Tensor textbook_codes(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O,
                          const at::Tensor& damped_II, const at::Tensor& order_I) {
  at::Tensor w = w_OI.to(at::kDouble).clone();
  at::Tensor inverse = at::linalg_inv(damped_II.to(at::kDouble)).clone();
  at::Tensor codes = at::zeros(w.sizes(), at::kChar);
  const at::Tensor scales = scales_O.to(at::kDouble);
  for (int64_t k = 0; k < order_I.size(0); ++k) {
    const auto i = order_I[k].item<int64_t>();
    const at::Tensor q = (w.select(1, i) / scales).round().clamp(q_min(bits), q_max(bits));
    codes.select(1, i).copy_(q);
    const at::Tensor error = (w.select(1, i) - q * scales) / inverse[i][i];
    w -= at::outer(error, inverse[i]);
    inverse -= at::outer(inverse.select(1, i), inverse[i]) / inverse[i][i];
  }
  return codes;
}

TEST(Gptq, ProductsOfBf16AreAsGood) {
  const InputStatistics input = statistics_of(correlated_inputs(2000, 600, 23));
  const at::Tensor w = at::randn({64, 600});
  for (const int bits : {8, 4}) {
    GptqOptions options;
    const double exact = loss(w, gptq_of(w, bits, input, options), input.hessian_II);
    options.products = at::kBFloat16;
    const double rounded = loss(w, gptq_of(w, bits, input, options), input.hessian_II);
    EXPECT_NEAR(rounded / exact, 1, 0.01) << bits << " bits";
  }
}

TEST(Gptq, EqualsTheTextbook) {
  for (const bool act_order : {true, false}) {
    for (const int64_t features : {1, 2, 3, 17, 64, 100}) {
      const InputStatistics input = statistics_of(correlated_inputs(400, features, 1));
      const at::Tensor w = at::randn({24, features});
      GptqOptions options = plain_options();
      options.factor = {.damping = 0.02, .token_damping = 0, .act_order = act_order};
      const QTensor q = gptq_of(w, 4, input, options);
      const at::Tensor diagonal = input.hessian_II.diagonal();
      const at::Tensor damped = input.hessian_II + 0.02 * diagonal.mean() * at::eye(features);
      const at::Tensor order =
          act_order ? diagonal.argsort(0, /*descending=*/true) : at::arange(features);
      EXPECT_TRUE(at::equal(q.codes_OI, textbook_codes(w, 4, q.scales_O, damped, order)))
          << features << (act_order ? " in act-order" : " in order");
    }
  }
}

/// The least loss of one channel over all codes.
double brute_force(const at::Tensor& w_I, int bits, double scale, const at::Tensor& hessian_II) {
  const int64_t features = w_I.size(0);
  const at::Tensor grid = at::arange(q_min(bits), q_max(bits) + 1, at::kDouble);
  const std::vector<at::Tensor> axes(static_cast<size_t>(features), grid);
  const at::Tensor codes = features == 1 ? grid.unsqueeze(1) : at::cartesian_prod(axes);
  const at::Tensor error = w_I.to(at::kDouble) - codes * scale;
  return (at::matmul(error, hessian_II.to(at::kDouble)) * error).sum(1).min().item<double>();
}

TEST(Gptq, ComesCloseToBruteForce) {
  double found = 0;
  double best = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const InputStatistics input = statistics_of(correlated_inputs(50, 5, seed));
    const at::Tensor w = at::randn({1, 5});
    GptqOptions options;
    options.scales = 1;
    options.factor = {.damping = 1e-4, .token_damping = 0, .act_order = true};
    const QTensor q = gptq_of(w, 3, input, options);
    const double least = brute_force(w[0], 3, q.scales_O[0].item<double>(), input.hessian_II);
    const double ours = loss(w, q, input.hessian_II);
    EXPECT_GE(ours, least * (1 - 1e-6));
    found += ours;
    best += least;
  }
  EXPECT_LT(found, 1.25 * best);
}

TEST(Gptq, IdentityHessianRoundsToNearest) {
  at::manual_seed(5);
  const at::Tensor w = at::randn({40, 96});
  for (const int bits : {4, 8}) {
    const QTensor q = gptq_of(w, bits, {at::eye(96) * 3, {}, 1000});
    EXPECT_TRUE(at::equal(q.codes_OI, quantize_weight(w, bits, q.scales_O).codes_OI));
  }
}

TEST(Gptq, NoTokensRoundToNearest) {
  at::manual_seed(6);
  const at::Tensor w = at::randn({8, 32});
  const QTensor q = gptq_of(w, 4, {at::zeros({32, 32}), {}, 0});
  EXPECT_TRUE(at::equal(q.codes_OI, quantize_weight(w, 4, q.scales_O).codes_OI));
  EXPECT_LE(loss(w, q, at::eye(32)), loss(w, nearest(w, 4), at::eye(32)));
}

TEST(Gptq, BeatsRoundingToNearestOnNewTokens) {
  const InputStatistics input = statistics_of(correlated_inputs(2000, 128, 7));
  const at::Tensor unseen_II = statistics_of(correlated_inputs(2000, 128, 8)).hessian_II;
  at::manual_seed(9);
  const at::Tensor w = at::randn({64, 128});
  for (const int bits : {4, 8}) {
    const double plain = loss(w, nearest(w, bits), unseen_II);
    const double searched = loss(w, scale_search(w, bits, {input}, {}), unseen_II);
    const double ours = loss(w, gptq_of(w, bits, input), unseen_II);
    EXPECT_LT(searched, plain);
    EXPECT_LT(ours, 0.5 * searched);
  }
}

TEST(Gptq, MoreScalesAndSweepsNeverHurt) {
  const InputStatistics input = statistics_of(correlated_inputs(500, 48, 10));
  at::manual_seed(11);
  const at::Tensor w = at::randn({32, 48});
  const HessianFactor factor = factor_hessian(input, {});
  const at::Tensor damped_II =
      input.hessian_II + factor.damping * input.hessian_II.diagonal().mean() * at::eye(48);
  at::Tensor before = losses(w, gptq(factor.to_order(w), 4, factor, plain_options()), damped_II);
  for (const auto& [scales, sweeps] : std::vector<std::pair<int, int>>{{3, 0}, {3, 1}, {3, 4}}) {
    GptqOptions options;
    options.scales = scales;
    options.sweeps = sweeps;
    const at::Tensor after = losses(w, gptq(factor.to_order(w), 4, factor, options), damped_II);
    EXPECT_TRUE((after <= before * (1 + 1e-4)).all().item<bool>()) << scales << " " << sweeps;
    before = after;
  }
}

TEST(Gptq, CorrectionLowersTheErrorAgainstTheFloatModel) {
  const at::Tensor x = correlated_inputs(3000, 64, 12);
  at::manual_seed(13);
  const at::Tensor seen = x * 0.9 + 0.3 * at::randn_like(x);
  const InputStatistics input{at::matmul(seen.t(), seen), at::matmul((x - seen).t(), seen), 3000};
  const at::Tensor w = at::randn({32, 64});
  const auto error = [&](const QTensor& q) {
    const at::Tensor difference =
        at::matmul(x, w.t()) - at::matmul(seen, q.dequantize(at::kFloat).t());
    return difference.square().sum().item<double>();
  };
  GptqOptions uncorrected;
  uncorrected.correct = false;
  EXPECT_LT(error(gptq_of(w, 4, input)), 0.7 * error(gptq_of(w, 4, input, uncorrected)));
}

TEST(Gptq, DeadFeaturesAreRoundedToNearest) {
  at::Tensor x = correlated_inputs(500, 40, 14);
  const at::Tensor dead = at::tensor({0, 7, 39}, at::kLong);
  x.index_fill_(1, dead, 0);
  at::manual_seed(15);
  const at::Tensor w = at::randn({16, 40});
  for (const double damping : {0.0, 0.05}) {
    GptqOptions options;
    options.factor = {.damping = damping, .token_damping = 0, .act_order = true};
    const QTensor q = gptq_of(w, 4, statistics_of(x), options);
    const QTensor plain = quantize_weight(w, 4, q.scales_O);
    EXPECT_TRUE(at::equal(q.codes_OI.index_select(1, dead), plain.codes_OI.index_select(1, dead)));
  }
}

TEST(Gptq, ChannelOfZerosHasScaleOne) {
  at::manual_seed(16);
  at::Tensor w = at::randn({3, 20});
  w[1].zero_();
  const QTensor q = gptq_of(w, 4, statistics_of(correlated_inputs(100, 20, 16)));
  EXPECT_EQ(q.scales_O[1].item<float>(), 1);
  EXPECT_EQ(q.codes_OI[1].abs().max().item<int>(), 0);
}

TEST(Gptq, ChannelsAreIndependentWhateverTheSlab) {
  const InputStatistics input = statistics_of(correlated_inputs(300, 64, 17));
  at::manual_seed(18);
  const at::Tensor w = at::randn({300, 64});
  GptqOptions options;
  options.scales = 1000;  // 256 channels at a time
  const at::Tensor all = losses(w, gptq_of(w, 4, input, options), input.hessian_II);
  const at::Tensor last = w.narrow(0, 250, 50);
  const at::Tensor alone = losses(last, gptq_of(last, 4, input, options), input.hessian_II);
  EXPECT_NEAR(alone.sum().item<double>() / all.narrow(0, 250, 50).sum().item<double>(), 1, 0.01);
}

TEST(Gptq, WeightsOfOneInputAreTreatedEachByItself) {
  const InputStatistics input = statistics_of(correlated_inputs(300, 32, 19));
  at::manual_seed(20);
  const at::Tensor gate = at::randn({16, 32}).to(at::kBFloat16);
  const at::Tensor up = at::randn({24, 32});
  const std::vector<QTensor> both = gptq({gate, up}, 4, {input}, {});
  EXPECT_TRUE(at::equal(both[0].codes_OI, gptq_of(gate.to(at::kFloat), 4, input).codes_OI));
  EXPECT_TRUE(at::equal(both[1].codes_OI, gptq_of(up, 4, input).codes_OI));
}

TEST(Gptq, RefusesWhatIsNotFinite) {
  const InputStatistics input = statistics_of(correlated_inputs(100, 8, 21));
  at::Tensor w = at::randn({4, 8});
  w[1][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(gptq_of(w, 4, input), Error);
  EXPECT_THROW(nearest(w, 4), Error);
  EXPECT_THROW(scale_search(w, 4, {input}, {}), Error);
  InputStatistics broken = input;
  broken.cross_II = at::full({8, 8}, std::numeric_limits<float>::infinity());
  EXPECT_THROW(gptq_of(at::ones({4, 8}), 4, broken), Error);
  broken = {-at::eye(8), {}, 100};
  EXPECT_THROW(gptq_of(at::ones({4, 8}), 4, broken), Error);
}

}  // namespace
}  // namespace blockptq
