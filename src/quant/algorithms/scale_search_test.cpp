#include "quant/algorithms/scale_search.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "quant/algorithms/nearest.h"
#include "quant/algorithms/test_support.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

/// The least loss of every channel over all factors, in fp64.
at::Tensor least_losses(const at::Tensor& w_OI, int bits, const at::Tensor& hessian_II,
                        const ScaleSearchOptions& options) {
  at::Tensor least = losses(w_OI, nearest(w_OI, bits), hessian_II);
  const at::Tensor factors = at::linspace(1, options.smallest, options.steps);
  for (int64_t step = 0; step < options.steps; ++step) {
    const at::Tensor scales = weight_scales(w_OI, bits, factors[step].expand({w_OI.size(0)}));
    least = at::minimum(least, losses(w_OI, quantize_weight(w_OI, bits, scales), hessian_II));
  }
  return least;
}

TEST(ScaleSearch, FindsTheLeastLossOfAllFactors) {
  const InputStatistics input = statistics_of(correlated_inputs(300, 40, 1));
  const at::Tensor w = at::randn({20, 40}) * at::randn({20, 40}).abs();
  for (const int bits : {4, 8}) {
    ScaleSearchOptions options;
    options.exact = options.steps;
    const at::Tensor exact = losses(w, scale_search(w, bits, {input}, options), input.hessian_II);
    EXPECT_TRUE(at::allclose(exact, least_losses(w, bits, input.hessian_II, options), 1e-4));
    options.exact = 0;
    const at::Tensor diagonal = input.hessian_II.diagonal().diag();
    const at::Tensor by_diagonal = losses(w, scale_search(w, bits, {input}, options), diagonal);
    EXPECT_TRUE(at::allclose(by_diagonal, least_losses(w, bits, diagonal, options), 1e-4));
  }
}

TEST(ScaleSearch, IsNeverWorseThanNearest) {
  const InputStatistics input = statistics_of(correlated_inputs(100, 64, 2));
  const at::Tensor w = at::randn({50, 64});
  for (const int bits : {4, 8}) {
    const at::Tensor plain = losses(w, nearest(w, bits), input.hessian_II);
    const at::Tensor ours = losses(w, scale_search(w, bits, {input}, {}), input.hessian_II);
    EXPECT_TRUE((ours <= plain * (1 + 1e-5)).all().item<bool>());
  }
}

TEST(ScaleSearch, LeavesWhatTheGridHolds) {
  const at::Tensor w = at::randint(-7, 8, {16, 32}).to(at::kFloat);
  at::Tensor filled = w.clone();
  filled.select(1, 0).fill_(7);
  const QTensor q = scale_search(filled, 4, {statistics_of(correlated_inputs(100, 32, 3))}, {});
  EXPECT_TRUE(at::equal(q.codes_OI.to(at::kFloat), filled));
}

TEST(ScaleSearch, ChannelOfZerosHasScaleOne) {
  at::Tensor w = at::randn({2, 16});
  w[0].zero_();
  const QTensor q = scale_search(w, 4, {statistics_of(correlated_inputs(100, 16, 4))}, {});
  EXPECT_EQ(q.scales_O[0].item<float>(), 1);
}

}  // namespace
}  // namespace blockptq
