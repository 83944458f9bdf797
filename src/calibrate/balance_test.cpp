#include "calibrate/balance.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "quant/grid.h"
#include "quant/recipe.h"

namespace blockptq {
namespace {

/// Squared error of y = W x when both are rounded after the factors.
double rounding_error(const BalancedInput& input, const BalancedReader& reader,
                      const at::Tensor& s_I) {
  const auto rounded = [](const at::Tensor& rows, int bits) {
    return bits == kFloatBits ? rows : fake_quantize(rows, bits);
  };
  const at::Tensor y = at::matmul(rounded(input.x_TI / s_I, input.bits),
                                  rounded(reader.w_OI * s_I, reader.bits).t());
  return (y - at::matmul(input.x_TI, reader.w_OI.t())).square().sum().item<double>();
}

/// Features of very different size, and rare large values.
at::Tensor uneven(int64_t rows, int64_t columns) {
  const at::Tensor size_I = (at::randn({columns}) * 0.7).exp();
  const at::Tensor peaks = at::where(at::rand({rows, columns}) < 0.01, 6.0, 1.0);
  return at::randn({rows, columns}) * size_I * peaks;
}

TEST(Balance, EqualTokensAreMadeFlat) {
  // One pattern of magnitudes: the maximum is least, at a given norm of the weights' columns, where
  // all features are equally large.
  const at::Tensor x_I = at::tensor({8.0F, 1.0F, 4.0F, 2.0F});
  const BalancedInput input{x_I.expand({4000, 4}).contiguous()};
  const at::Tensor s_F = balance_factors(input, {{at::eye(4), kFloatBits}});
  const at::Tensor flat_I = x_I / s_F;
  EXPECT_LT((flat_I / flat_I.mean() - 1).abs().max().item<double>(), 0.15);
  EXPECT_NEAR(s_F.log().sum().item<double>(), 0, 1e-5);
}

TEST(Balance, RoundsBetterThanOneStrengthForAll) {
  at::manual_seed(1);
  for (const int weight_bits : {8, 4, kFloatBits}) {
    const at::Tensor all_TI = uneven(6000, 96);
    const BalancedInput input{all_TI.slice(0, 0, 3000)};
    const BalancedInput unseen{all_TI.slice(0, 3000)};
    const BalancedReader reader{uneven(64, 96), weight_bits};
    const double found = rounding_error(unseen, reader, balance_factors(input, {reader}));
    const at::Tensor x_I = input.x_TI.square().mean(0).sqrt();
    const at::Tensor w_I = reader.w_OI.square().mean(0).sqrt();
    EXPECT_LT(found, 0.6 * rounding_error(unseen, reader, at::ones({96})));
    for (const double alpha : {0.25, 0.5, 0.75}) {
      const at::Tensor smooth_I = x_I.pow(alpha) / w_I.pow(1 - alpha);
      EXPECT_LT(found, rounding_error(unseen, reader, smooth_I)) << weight_bits << " " << alpha;
    }
  }
}

TEST(Balance, FewTokensStayNearTheStart) {
  at::manual_seed(2);
  const BalancedInput few{uneven(1, 32)};
  const at::Tensor w_OI = uneven(16, 32);
  const at::Tensor s_F = balance_factors(few, {{w_OI}});
  const at::Tensor start_F = few.x_TI[0].abs().sqrt() / w_OI.square().sum(0).pow(0.25);
  const at::Tensor ratio_F = (s_F / start_F).log();
  EXPECT_LT((ratio_F - ratio_F.mean()).abs().max().item<double>(), 0.1);
}

TEST(Balance, SharedFeaturesHaveOneFactor) {
  at::manual_seed(3);
  const at::Tensor columns_I = at::arange(8).repeat({2});
  const at::Tensor s_F = balance_factors({uneven(500, 16)}, {{uneven(24, 16)}}, columns_I);
  EXPECT_EQ(s_F.sizes(), at::IntArrayRef({8}));
}

TEST(Balance, GroupsAreBalancedOnTheirOwn) {
  at::manual_seed(4);
  const at::Tensor x_TI = uneven(2000, 32);
  const at::Tensor w_OI = uneven(24, 32);
  const auto factors = [&](int64_t begin, int64_t end, int64_t group) {
    const at::Tensor log_F = balance_factors({x_TI.slice(1, begin, end), {}, 8, group},
                                             {{w_OI.slice(1, begin, end), kFloatBits}})
                                 .log();
    return log_F - log_F.mean();
  };
  const at::Tensor both_F = factors(0, 32, 16);
  const at::Tensor second_F = both_F.slice(0, 16) - both_F.slice(0, 16).mean();
  EXPECT_LT((second_F - factors(16, 32, 0)).abs().max().item<double>(), 0.2);
}

TEST(Balance, UnusedFeaturesAreLeftAlone) {
  at::manual_seed(5);
  at::Tensor x_TI = uneven(100, 6);
  at::Tensor w_OI = uneven(10, 6);
  x_TI.select(1, 2).zero_();
  w_OI.select(1, 4).zero_();
  const at::Tensor s_F = balance_factors({x_TI}, {{w_OI}});
  EXPECT_EQ(s_F[2].item<float>(), 1.0F);
  EXPECT_EQ(s_F[4].item<float>(), 1.0F);
  EXPECT_TRUE(s_F.isfinite().all().item<bool>());
  EXPECT_FALSE(balance_factors({x_TI, {}, kFloatBits}, {{w_OI, kFloatBits}}).defined());
  EXPECT_TRUE(at::equal(balance_factors({at::zeros({3, 6})}, {{w_OI}}), at::ones({6})));
}

}  // namespace
}  // namespace blockptq
