#include "quant/transforms/smooth.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace blockptq {
namespace {

TEST(Smooth, FactorsFollowTheFormula) {
  const at::Tensor x = at::tensor({16.0F, 1.0F, 0.0F, 4.0F});
  const at::Tensor w = at::tensor({4.0F, 4.0F, 2.0F, 0.0F});
  const at::Tensor factors = smooth_factors(x, w, 0.5);
  EXPECT_TRUE(at::allclose(factors, at::tensor({2.0F, 0.5F, 1.0F, 1.0F})));
  EXPECT_TRUE(at::allclose(smooth_factors(x, w, 1.0), at::tensor({16.0F, 1.0F, 1.0F, 1.0F})));
}

TEST(Smooth, MagnitudesAreRelativeToTheMaximumOfTheRow) {
  FeatureMagnitude magnitude;
  EXPECT_FALSE(magnitude.value().defined());
  magnitude.add(at::tensor({1000.0F, 10.0F, 0.0F}).view({1, 3}));
  magnitude.add(at::tensor({1.0F, -2.0F, 0.0F, 1.0F, 2.0F, 0.0F, 0.0F, 0.0F, 0.0F}).view({3, 3}));
  const at::Tensor expected =
      at::tensor({1.0F + 0.25F + 0.25F, 1e-4F + 1.0F + 1.0F, 0.0F}).div(4).sqrt();
  EXPECT_TRUE(at::allclose(magnitude.value(), expected));
}

TEST(Smooth, PowersOfTwoAreNearestInRatio) {
  std::vector<float> factors;
  for (int k = -400; k <= 400; ++k) {
    factors.push_back(static_cast<float>(std::pow(2.0, k * 0.1 + 0.01)));
  }
  const at::Tensor rounded = nearest_power_of_two(at::tensor(factors));
  for (size_t k = 0; k < factors.size(); ++k) {
    const double expected = std::exp2(std::round(std::log2(static_cast<double>(factors[k]))));
    EXPECT_EQ(rounded[static_cast<int64_t>(k)].item<double>(), expected) << factors[k];
  }
}

TEST(Smooth, FoldingKeepsTheFunction) {
  at::manual_seed(1);
  const at::Tensor before_IJ = at::randn({48, 32});  // makes x
  const at::Tensor w_OI = at::randn({24, 48});       // reads x
  const at::Tensor z_TJ = at::randn({40, 32});
  const at::Tensor x_TI = at::matmul(z_TJ, before_IJ.t());
  const at::Tensor s_I =
      smooth_factors(std::get<0>(x_TI.abs().max(0)), std::get<0>(w_OI.abs().max(0)), 0.6);
  const at::Tensor y = at::matmul(x_TI, w_OI.t());
  const at::Tensor folded = at::matmul(at::matmul(z_TJ, fold_into_rows(before_IJ, s_I).t()),
                                       fold_into_columns(w_OI, s_I).t());
  EXPECT_LT((folded - y).norm().item<double>(), 1e-6 * y.norm().item<double>());
}

TEST(Smooth, PowersOfTwoFoldExactlyIntoBf16) {
  at::manual_seed(2);
  const at::Tensor norm_I = at::randn({64}).to(at::kBFloat16);
  const at::Tensor s_I = nearest_power_of_two(at::rand({64}) * 30 + 0.01);
  const at::Tensor folded_I = fold_into_rows(norm_I, s_I);
  EXPECT_TRUE(at::equal(folded_I.to(at::kFloat) * s_I, norm_I.to(at::kFloat)));
}

}  // namespace
}  // namespace blockptq
