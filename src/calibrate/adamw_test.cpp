#include "calibrate/adamw.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace blockptq {
namespace {

/// The formulas of the paper (arXiv 1711.05101, algorithm 2) for one number.
struct ScalarAdamW {
  double value;
  double mean = 0;
  double square = 0;
  int steps = 0;

  void step(double gradient, double lr, double weight_decay) {
    ++steps;
    value -= lr * weight_decay * value;
    mean = 0.9 * mean + 0.1 * gradient;
    square = 0.999 * square + 0.001 * gradient * gradient;
    const double corrected_mean = mean / (1 - std::pow(0.9, steps));
    const double corrected_square = square / (1 - std::pow(0.999, steps));
    value -= lr * corrected_mean / (std::sqrt(corrected_square) + 1e-8);
  }
};

TEST(AdamW, FollowsTheFormulas) {
  at::manual_seed(1);
  const at::Tensor start = at::randn({37, 1}) * 4;
  const at::Tensor param = start.clone().requires_grad_();
  const at::Tensor unused = at::full({1}, 4.0F).requires_grad_();
  AdamW adamw({param, unused}, 0.01);
  std::vector<ScalarAdamW> expected;
  for (int64_t i = 0; i < start.numel(); ++i) {
    expected.push_back({start[i].item<double>()});
  }
  for (int step = 0; step < 20; ++step) {
    const at::Tensor gradient = at::randn({37, 1}) * std::pow(10.0, step % 5 - 4);
    param.mutable_grad() = gradient.clone();
    const double lr = cosine_lr(step, 20, 0.1, 1e-5);
    adamw.step(lr);
    EXPECT_FALSE(param.grad().defined());
    for (int64_t i = 0; i < start.numel(); ++i) {
      auto& scalar = expected[static_cast<size_t>(i)];
      scalar.step(gradient[i].item<double>(), lr, 0.01);
      ASSERT_NEAR(param[i].item<double>(), scalar.value, 1e-5 * (1 + std::abs(scalar.value)));
    }
  }
  EXPECT_EQ(unused.item<float>(), 4.0F) << "no gradient, no weight decay";
}

TEST(CosineLr, EndsAndMiddle) {
  EXPECT_DOUBLE_EQ(cosine_lr(0, 500, 0.1, 1e-5), 0.1);
  EXPECT_DOUBLE_EQ(cosine_lr(250, 500, 0.1, 1e-5), (0.1 + 1e-5) / 2);
  EXPECT_DOUBLE_EQ(cosine_lr(500, 500, 0.1, 1e-5), 1e-5);
}

}  // namespace
}  // namespace blockptq
