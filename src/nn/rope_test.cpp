#include "nn/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace blockptq::nn {
namespace {

constexpr int64_t kDim = 8;

RopeSpec plain_spec() {
  RopeSpec spec;
  spec.dim = kDim;
  return spec;
}

at::Tensor apply_rope(const at::Tensor& x_THR, const RopeTable& table, RopeLayout layout) {
  at::Tensor out = at::empty_like(x_THR);
  rotate_into(x_THR, table, layout, out);
  return out;
}

/// cos and sin of token t and pair i by the formula of arXiv 2104.09864.
double angle(int64_t t, int64_t i) {
  return t * std::pow(10000.0, -2.0 * i / kDim);
}

TEST(Rope, InterleavedPairsGoToHalves) {
  const at::Tensor x = at::randn({5, 2, kDim});
  const at::Tensor y =
      apply_rope(x, make_rope_table(plain_spec(), 5, at::kCPU), RopeLayout::interleaved);
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t i = 0; i < kDim / 2; ++i) {
      const double a = x[t][1][2 * i].item<double>();
      const double b = x[t][1][2 * i + 1].item<double>();
      const double c = std::cos(angle(t, i));
      const double s = std::sin(angle(t, i));
      EXPECT_NEAR(y[t][1][i].item<double>(), a * c - b * s, 1e-5);
      EXPECT_NEAR(y[t][1][kDim / 2 + i].item<double>(), b * c + a * s, 1e-5);
    }
  }
}

TEST(Rope, HalfSplitPairs) {
  const at::Tensor x = at::randn({5, 1, kDim});
  const at::Tensor y =
      apply_rope(x, make_rope_table(plain_spec(), 5, at::kCPU), RopeLayout::half_split);
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t i = 0; i < kDim / 2; ++i) {
      const double a = x[t][0][i].item<double>();
      const double b = x[t][0][kDim / 2 + i].item<double>();
      EXPECT_NEAR(y[t][0][i].item<double>(), a * std::cos(angle(t, i)) - b * std::sin(angle(t, i)),
                  1e-5);
    }
  }
}

TEST(Rope, FusedEqualsComposed) {
  const at::Tensor x = at::randn({7, 3, kDim});
  const RopeTable table = make_rope_table(plain_spec(), 7, at::kCPU);
  for (const RopeLayout layout : {RopeLayout::interleaved, RopeLayout::half_split}) {
    at::Tensor composed = at::empty_like(x);
    rotate_into(x.clone().requires_grad_(), table, layout, composed);
    EXPECT_TRUE(at::allclose(apply_rope(x, table, layout), composed, 1e-6, 1e-6));
  }
}

TEST(Rope, DotProductsDependOnDistanceOnly) {
  const at::Tensor q = at::randn({1, 1, kDim}).expand({16, 1, kDim}).contiguous();
  const at::Tensor k = at::randn({1, 1, kDim}).expand({16, 1, kDim}).contiguous();
  const RopeTable table = make_rope_table(plain_spec(), 16, at::kCPU);
  const at::Tensor dots = at::mm(apply_rope(q, table, RopeLayout::interleaved).squeeze(1),
                                 apply_rope(k, table, RopeLayout::interleaved).squeeze(1).t());
  EXPECT_NEAR(dots[3][1].item<double>(), dots[14][12].item<double>(), 1e-4);
  EXPECT_NEAR(dots[9][2].item<double>(), dots[13][6].item<double>(), 1e-4);
}

TEST(Rope, YarnKeepsFastAndStretchesSlowFrequencies) {
  RopeSpec spec;
  spec.dim = 32;
  spec.yarn = YarnScaling{4, 32, 1, 1, 1, 1024};
  const RopeTable table = make_rope_table(spec, 2, at::kCPU);
  const double fastest = std::asin(table.sin[1][0].item<double>());
  const double slowest = std::asin(table.sin[1][15].item<double>());
  EXPECT_NEAR(fastest, 1.0, 1e-6);
  EXPECT_NEAR(slowest, std::pow(10000.0, -30.0 / 32) / 4, 1e-9);
  // mscale = 0.1 ln 4 + 1, squared (arXiv 2309.00071, section 3.4).
  EXPECT_NEAR(spec.softmax_factor(), std::pow(0.1 * std::log(4.0) + 1, 2), 1e-12);
  EXPECT_EQ(plain_spec().softmax_factor(), 1.0);
}

TEST(Rope, YarnMagnitudeAndUntruncatedRamp) {
  RopeSpec spec;
  spec.dim = 32;
  spec.yarn = YarnScaling{.factor = 4, .original_max_position_embeddings = 1024};
  const RopeTable table = make_rope_table(spec, 1, at::kCPU);
  EXPECT_NEAR(table.cos[0][0].item<double>(), 0.1 * std::log(4.0) + 1, 1e-6);
  spec.yarn->attention_factor = 1.5;
  EXPECT_NEAR(make_rope_table(spec, 1, at::kCPU).cos[0][0].item<double>(), 1.5, 1e-6);

  spec.yarn->attention_factor = 1;
  spec.yarn->truncate = false;
  // Dimensions that turn 32 times and once within 1024 positions (arXiv 2309.00071, section 3.2).
  const auto dimension = [](double turns) {
    return 32 * std::log(1024 / (turns * 2 * M_PI)) / (2 * std::log(10000.0));
  };
  const double ramp = (6 - dimension(32)) / (dimension(1) - dimension(32));
  const double frequency = std::pow(10000.0, -12.0 / 32) * (1 - ramp + ramp / 4);
  EXPECT_NEAR(std::asin(make_rope_table(spec, 2, at::kCPU).sin[1][6].item<double>()), frequency,
              1e-7);
}

/// The frequency of pair i as `apply_scaling` of the published Llama 3.1 code has it.
double llama3_frequency(double frequency, const Llama3Scaling& s) {
  const double context = s.original_max_position_embeddings;
  const double wavelength = 2 * M_PI / frequency;
  if (wavelength < context / s.high_freq_factor) {
    return frequency;
  }
  if (wavelength > context / s.low_freq_factor) {
    return frequency / s.factor;
  }
  const double smooth =
      (context / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * frequency / s.factor + smooth * frequency;
}

TEST(Rope, Llama3StretchesLongWavelengths) {
  RopeSpec spec;
  spec.dim = 64;
  spec.theta = 500000;
  spec.llama3 = Llama3Scaling{8, 1, 4, 512};
  const RopeTable table = make_rope_table(spec, 2, at::kCPU);
  for (int64_t i = 0; i < 32; ++i) {
    const double plain = std::pow(500000.0, -2.0 * i / 64);
    EXPECT_NEAR(std::asin(table.sin[1][i].item<double>()), llama3_frequency(plain, *spec.llama3),
                1e-7)
        << "pair " << i;
  }
  EXPECT_EQ(spec.softmax_factor(), 1.0);
}

}  // namespace
}  // namespace blockptq::nn
