#include "nn/norm.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace blockptq::nn {
namespace {

TEST(RmsNorm, EqualsTheFormula) {
  const at::Tensor x = at::randn({4, 33});
  const at::Tensor weight = at::randn({33});
  const at::Tensor y = rms_norm(x, weight, 1e-6);
  for (int64_t t = 0; t < 4; ++t) {
    double squares = 0;
    for (int64_t d = 0; d < 33; ++d) {
      squares += std::pow(x[t][d].item<double>(), 2);
    }
    for (int64_t d = 0; d < 33; ++d) {
      EXPECT_NEAR(
          y[t][d].item<double>(),
          x[t][d].item<double>() / std::sqrt(squares / 33 + 1e-6) * weight[d].item<double>(), 1e-5);
    }
  }
}

TEST(RmsNorm, KeepsTheTypeAndTakesColumnSlices) {
  const at::Tensor wide = at::randn({5, 40}).to(at::kBFloat16);
  const at::Tensor weight = at::ones({24});
  const at::Tensor y = rms_norm(wide.slice(1, 8, 32), weight, 1e-6);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(y, rms_norm(wide.slice(1, 8, 32).contiguous(), weight, 1e-6)));
}

TEST(RmsNorm, FusedEqualsComposed) {
  const at::Tensor x = at::randn({9, 70});
  const at::Tensor weight = at::randn({70});
  EXPECT_TRUE(at::allclose(rms_norm(x, weight, 1e-6),
                           rms_norm(x.clone().requires_grad_(), weight, 1e-6), 1e-6, 1e-6));
}

TEST(RmsNorm, GathersRows) {
  const at::Tensor x = at::randn({9, 16});
  const at::Tensor weight = at::randn({16});
  const at::Tensor rows = at::tensor({4, 0, 8}, at::kLong);
  EXPECT_TRUE(at::equal(gather_rms_norm(x, rows, weight, 1e-6),
                        rms_norm(x.index_select(0, rows), weight, 1e-6)));
}

TEST(LayerNorm, EqualsTheFormula) {
  const at::Tensor x = at::randn({3, 16});
  const at::Tensor weight = at::randn({16});
  const at::Tensor bias = at::randn({16});
  const at::Tensor centred = x - x.mean(-1, true);
  const at::Tensor expected =
      centred / (centred.square().mean(-1, true) + 1e-6).sqrt() * weight + bias;
  EXPECT_LE((layer_norm(x, weight, bias, 1e-6) - expected).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace blockptq::nn
