#include "quant/algorithms/hessian_factor.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "quant/algorithms/shrink.h"
#include "quant/algorithms/test_support.h"

namespace blockptq {
namespace {

bool close(const at::Tensor& a, const at::Tensor& b, double relative) {
  const at::Tensor expected = b.to(at::kDouble);
  return (a.to(at::kDouble) - expected).norm().item<double>() <=
         relative * expected.norm().item<double>();
}

TEST(HessianFactor, IsTheCholeskyFactorOfTheDampedHessianInOrder) {
  const InputStatistics input = statistics_of(correlated_inputs(120, 30, 1));
  const HessianFactor factor = factor_hessian(input, {});
  EXPECT_NEAR(factor.damping, 0.03 + 0.6 * 30 / 120, 1e-12);
  const at::Tensor damped =
      input.hessian_II + factor.damping * input.hessian_II.diagonal().mean() * at::eye(30);
  const at::Tensor product = at::matmul(factor.lower_II, factor.lower_II.t());
  EXPECT_TRUE(close(factor.from_order(factor.from_order(product).t()), damped, 1e-5));
  const at::Tensor diagonal = input.hessian_II.diagonal().index_select(0, factor.order_I);
  EXPECT_TRUE((diagonal.diff() >= 0).all().item<bool>());
}

TEST(HessianFactor, OrderGoesThereAndBack) {
  const HessianFactor factor = factor_hessian(statistics_of(correlated_inputs(50, 20, 2)), {});
  const at::Tensor x = at::randn({3, 20});
  EXPECT_TRUE(at::equal(factor.from_order(factor.to_order(x)), x));
  EXPECT_TRUE(
      at::equal(factor.to_order(x).select(1, 4), x.select(1, factor.order_I[4].item<int64_t>())));
}

TEST(HessianFactor, DampingIsRaisedUntilTheFactorExists) {
  at::Tensor hessian = at::ones({6, 6});  // rank 1, and a little less than positive
  hessian.fill_diagonal_(0.999F);
  const HessianFactor factor =
      factor_hessian({hessian, {}, 100}, {.damping = 0, .token_damping = 0, .act_order = true});
  EXPECT_GT(factor.damping, 0);
  EXPECT_LT(factor.damping, 0.1);
  EXPECT_TRUE(factor.lower_II.isfinite().all().item<bool>());
}

// Ridge regression as a least-squares problem of its own: the rows sqrt(lambda) I -> sqrt(lambda) w
// below the tokens g x' -> g w x.
TEST(CorrectedTarget, SolvesTheLeastSquares) {
  const int64_t features = 24;
  const at::Tensor x = correlated_inputs(200, features, 3);
  const at::Tensor seen = x * 0.95 + 0.2 * at::randn_like(x);
  const at::Tensor g = at::rand({200, 1}) + 0.1;
  const at::Tensor w = at::randn({10, features});
  const InputStatistics input{at::matmul((seen * g).t(), seen * g),
                              at::matmul(((x - seen) * g).t(), seen * g), 200};
  const HessianFactor factor = factor_hessian(input, {});
  const double lambda = factor.damping * input.hessian_II.diagonal().mean().item<double>();
  const at::Tensor ridge = at::eye(features, at::kDouble) * std::sqrt(lambda);
  const at::Tensor wide = w.to(at::kDouble);
  const at::Tensor left = at::cat({(seen * g).to(at::kDouble), ridge});
  const at::Tensor right =
      at::cat({at::matmul((x * g).to(at::kDouble), wide.t()), at::matmul(ridge, wide.t())});
  const at::Tensor expected = std::get<0>(at::linalg_lstsq(left, right)).t();
  const at::Tensor ours =
      factor.from_order(corrected_target(w, at::matmul(w, input.cross_II), factor));
  EXPECT_TRUE(close(ours, expected, 1e-5));
  EXPECT_FALSE(close(w, expected, 1e-2));
}

TEST(CorrectedTarget, IsTheWeightWithoutCrossSums) {
  const HessianFactor factor = factor_hessian(statistics_of(correlated_inputs(50, 12, 4)), {});
  const at::Tensor w = at::randn({5, 12});
  EXPECT_TRUE(at::equal(factor.from_order(corrected_target(w, {}, factor)), w));
}

TEST(Shrink, AddsAverageTokensOfTheBlock) {
  const at::Tensor expert_TI = correlated_inputs(6, 4, 5);
  const at::Tensor block_TI = correlated_inputs(100, 4, 6);
  const at::Tensor hessian_II = statistics_of(expert_TI).hessian_II;
  InputStatistics block = statistics_of(block_TI);
  block.cross_II = block.hessian_II * 0.1;
  const InputStatistics shrunk = shrink({statistics_of(expert_TI)}, {block}, 2).front();
  EXPECT_EQ(shrunk.tokens, 6 + 8);
  EXPECT_TRUE(close(shrunk.hessian_II, hessian_II + block.hessian_II * 0.08, 1e-6));
  EXPECT_TRUE(close(shrunk.cross_II, block.cross_II * 0.08, 1e-6));
  EXPECT_TRUE(
      at::equal(shrink({statistics_of(expert_TI)}, {block}, 0).front().hessian_II, hessian_II));
}

TEST(Shrink, ExpertWithoutTokensGetsTheBlocks) {
  const InputStatistics block = statistics_of(correlated_inputs(100, 4, 7));
  const InputStatistics shrunk = shrink({}, {block}, 1).front();
  EXPECT_EQ(shrunk.tokens, 4);
  EXPECT_TRUE(close(shrunk.hessian_II, block.hessian_II * 0.04, 1e-6));
  EXPECT_FALSE(shrunk.cross_II.defined());
}

}  // namespace
}  // namespace blockptq
