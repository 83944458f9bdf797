#include "quant/grid.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "quant/composed.h"
#include "quant/qtensor.h"

namespace blockptq {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

/// One element at a time, in the words of the formula.
float scale_by_hand(const at::Tensor& x, float factor, int bits) {
  float absmax = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    absmax = std::max(absmax, std::abs(x[i].item<float>()));
  }
  const float scale = absmax * factor / static_cast<float>(q_max(bits));
  return scale == 0 ? 1 : scale;
}
int64_t code_by_hand(float x, float scale, int bits) {
  const double rounded = std::nearbyint(x / scale);
  return static_cast<int64_t>(std::clamp<double>(rounded, static_cast<double>(q_min(bits)),
                                                 static_cast<double>(q_max(bits))));
}

TEST(WeightGrid, EqualsTheFormula) {
  for (const int bits : {2, 4, 8}) {
    const at::Tensor w = at::randn({3, 37});
    const at::Tensor clip = at::tensor({1.0F, 0.8F, 0.31F});
    const at::Tensor scales = weight_scales(w, bits, clip);
    const QTensor q = quantize_weight(w, bits, scales);
    for (int64_t o = 0; o < 3; ++o) {
      const float scale = scale_by_hand(w[o], clip[o].item<float>(), bits);
      ASSERT_EQ(scales[o].item<float>(), scale);
      for (int64_t i = 0; i < 37; ++i) {
        ASSERT_EQ(q.codes_OI[o][i].item<int64_t>(),
                  code_by_hand(w[o][i].item<float>(), scale, bits));
      }
    }
  }
}

TEST(WeightGrid, DequantizesWithOneRounding) {
  const at::Tensor w = at::randn({5, 70});
  const QTensor q = quantize_weight(w, 4, weight_scales(w, 4));
  const at::Tensor wide = q.codes_OI.to(at::kFloat) * q.scales_O.unsqueeze(1);
  for (const at::ScalarType type : kTypes) {
    EXPECT_TRUE(at::equal(q.dequantize(type), wide.to(type)));
  }
  EXPECT_LE(((wide - w).abs() / q.scales_O.unsqueeze(1)).max().item<float>(), 0.50001);
}

TEST(WeightGrid, TakesAnyStridesAndFloatingTypes) {
  const at::Tensor w = at::randn({40, 24});
  const at::Tensor scales = weight_scales(w.t(), 8);
  EXPECT_TRUE(at::equal(scales, weight_scales(w.t().contiguous(), 8)));
  EXPECT_TRUE(at::equal(weight_scales(w.t().to(at::kDouble), 8), scales));
  EXPECT_TRUE(at::equal(quantize_weight(w.t(), 8, scales).codes_OI,
                        quantize_weight(w.t().contiguous(), 8, scales).codes_OI));
}

TEST(WeightGrid, ChannelOfZerosHasScaleOne) {
  const at::Tensor w = at::zeros({2, 9});
  w[1][3] = 2;
  const at::Tensor scales = weight_scales(w, 8);
  EXPECT_EQ(scales[0].item<float>(), 1);
  const QTensor q = quantize_weight(w, 8, scales);
  EXPECT_EQ(q.codes_OI.ne(0).sum().item<int64_t>(), 1);
  EXPECT_EQ(q.codes_OI[1][3].item<int64_t>(), 127);
}

class ActivationGrid : public testing::TestWithParam<std::tuple<at::ScalarType, int64_t, double>> {
};
INSTANTIATE_TEST_SUITE_P(TypesGroupsAlphas, ActivationGrid,
                         testing::Combine(testing::ValuesIn(kTypes), testing::Values(0, 1, 32, 100),
                                          testing::Values(1.0, 0.75, 1.5)));

TEST_P(ActivationGrid, EqualsComposedOperations) {
  const auto [type, group, alpha] = GetParam();
  for (const int bits : {4, 8}) {
    const at::Tensor x = (at::randn({3, 5, 131}) * at::randn({3, 5, 1}).exp()).to(type);
    x[1][2] = 0;
    const at::Tensor factor = at::full({1}, alpha, at::kFloat);
    const at::Tensor scales = composed::scales(x, bits, group, factor);
    const QActivation q = quantize_activation(x, bits, group, alpha);
    EXPECT_TRUE(at::equal(q.scales, scales));
    EXPECT_TRUE(at::equal(q.codes.to(at::kFloat), composed::codes(x, bits, group, scales)));
    const at::Tensor y = fake_quantize(x, bits, group, alpha);
    EXPECT_EQ(y.scalar_type(), type);
    EXPECT_TRUE(at::equal(y, composed::fake_quantize(x, bits, group, factor, type)));
    EXPECT_TRUE(at::equal(y, composed::values(q.codes.to(at::kFloat), group, q.scales).to(type)));
  }
}

TEST(ActivationGrid, ScalesEqualTheFormulaPerGroup) {
  const at::Tensor x = at::randn({2, 70});
  const QActivation q = quantize_activation(x, 8, 32, 0.9);
  ASSERT_EQ(q.scales.sizes(), (at::IntArrayRef{2, 3}));
  for (int64_t t = 0; t < 2; ++t) {
    for (int64_t g = 0; g < 3; ++g) {
      const at::Tensor group = x[t].slice(0, 32 * g, 32 * (g + 1));
      const float scale = scale_by_hand(group, 0.9F, 8);
      EXPECT_EQ(q.scales[t][g].item<float>(), scale);
      for (int64_t i = 0; i < group.numel(); ++i) {
        EXPECT_EQ(q.codes[t][32 * g + i].item<int64_t>(),
                  code_by_hand(group[i].item<float>(), scale, 8));
      }
    }
  }
}

TEST(ActivationGrid, TakesAnyStridesAndNoRows) {
  const at::Tensor x = at::randn({4, 6, 50}).transpose(0, 1);
  EXPECT_TRUE(at::equal(fake_quantize(x, 8), fake_quantize(x.contiguous(), 8)));
  EXPECT_TRUE(at::equal(fake_quantize(x.slice(2, 3, 40), 8, 16),
                        fake_quantize(x.slice(2, 3, 40).contiguous(), 8, 16)));
  EXPECT_EQ(fake_quantize(at::empty({0, 16}), 8).sizes(), (at::IntArrayRef{0, 16}));
  EXPECT_EQ(quantize_activation(at::empty({0, 16}), 8, 8).scales.sizes(), (at::IntArrayRef{0, 2}));
}

TEST(ActivationGrid, NanAndInfinitySpoilTheirGroupOnly) {
  const at::Tensor x = at::ones({1, 12});
  x[0][1] = std::numeric_limits<float>::quiet_NaN();
  x[0][6] = -std::numeric_limits<float>::infinity();
  const at::Tensor y = fake_quantize(x, 8, 4);
  EXPECT_TRUE(y.slice(1, 0, 8).isnan().all().item<bool>());
  EXPECT_TRUE(at::equal(y.slice(1, 8, 12), at::ones({1, 4})));
  const QActivation q = quantize_activation(x, 8, 4);
  EXPECT_FALSE(q.scales[0].slice(0, 0, 2).isfinite().any().item<bool>());
}

}  // namespace
}  // namespace blockptq
