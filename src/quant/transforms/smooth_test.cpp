#include "quant/transforms/smooth.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace blockptq {
namespace {

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
  const at::Tensor s_I = at::rand({48}).add_(0.1);
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
