#include "quant/straight_through.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "quant/composed.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

/// Gradients of sum(y * weights) for the leaves.
std::vector<at::Tensor> gradients(const at::Tensor& y, const at::Tensor& weights,
                                  const std::vector<at::Tensor>& leaves) {
  (y.to(at::kFloat) * weights).sum().backward();
  std::vector<at::Tensor> found;
  for (const at::Tensor& leaf : leaves) {
    found.push_back(leaf.grad().clone());
    leaf.mutable_grad().reset();
  }
  return found;
}

/// Relative to the largest element.
void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  ASSERT_EQ(found.scalar_type(), expected.scalar_type());
  const double largest = expected.abs().max().item<double>();
  EXPECT_LE((found - expected).abs().max().item<double>(), tolerance * largest);
}

double tolerance_of(at::ScalarType type) {
  return type == at::kFloat ? 1e-5 : type == at::kHalf ? 1e-3 : 8e-3;
}

using Case = std::tuple<at::ScalarType, int64_t, double>;
class ActivationStraightThrough : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(TypesGroupsAlphas, ActivationStraightThrough,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                                          testing::Values(0, 32, 100),
                                          testing::Values(1.0, 0.7, 1.3)));

TEST_P(ActivationStraightThrough, EqualsAutogradOfComposedOperations) {
  at::manual_seed(1);
  const auto [type, group, alpha] = GetParam();
  const at::Tensor x = at::randn({3, 4, 131}).to(type);
  x[0][1] = 0;
  x[0][2].copy_(at::randint(-3, 4, {131}));  // many elements share the maximum
  x.requires_grad_();
  const at::Tensor factor = at::full({1}, alpha, at::kFloat).requires_grad_();
  const at::Tensor weights = at::randn({3, 4, 131});
  const at::Tensor y = fake_quantize_st(x, 8, group, factor);
  const at::Tensor expected = composed::fake_quantize(x, 8, group, factor, type);
  EXPECT_TRUE(at::equal(y, expected));
  EXPECT_TRUE(at::equal(y, fake_quantize(x, 8, group, alpha)));
  const auto found = gradients(y, weights, {x, factor});
  const auto wanted = gradients(expected, weights, {x, factor});
  expect_close(found[0], wanted[0], tolerance_of(type));
  // A sum in which terms of magnitude 1 cancel.
  EXPECT_TRUE(at::allclose(found[1], wanted[1], 1e-4, 1e-4));
}

TEST(ActivationStraightThrough, ByHand) {
  // s = 0.5 * 7 / 7 = 0.5: codes 7 (of 14), -1 and 2; the first is outside.
  const at::Tensor x = at::tensor({7.0F, -0.6F, 1.1F}).requires_grad_();
  const at::Tensor alpha = at::full({}, 0.5).requires_grad_();
  const at::Tensor y = fake_quantize_st(x, 4, 0, alpha);
  EXPECT_TRUE(at::equal(y, at::tensor({3.5F, -0.5F, 1.0F})));
  const auto found = gradients(y, at::tensor({1.0F, 10.0F, 100.0F}), {x, alpha});
  const double to_scale = 7 + 10 * (-1 + 1.2) + 100 * (2 - 2.2);
  EXPECT_NEAR(found[0][0].item<double>(), to_scale * 0.5 / 7, 1e-5);
  EXPECT_EQ(found[0][1].item<double>(), 10);
  EXPECT_EQ(found[0][2].item<double>(), 100);
  EXPECT_NEAR(found[1].item<double>(), to_scale * 7 / 7, 1e-5);
}

TEST(ActivationStraightThrough, TakesStridesAndGivesOnlyWhatIsAsked) {
  const at::Tensor x = at::randn({4, 6, 50}).requires_grad_();
  const at::Tensor alpha = at::ones({1});
  const at::Tensor weights = at::randn({6, 4, 50});
  const auto strided = gradients(fake_quantize_st(x.transpose(0, 1), 8, 0, alpha), weights, {x})[0];
  const auto dense = gradients(fake_quantize_st(x, 8, 0, alpha), weights.transpose(0, 1), {x})[0];
  EXPECT_TRUE(at::equal(strided, dense));
  EXPECT_FALSE(fake_quantize_st(x.detach(), 8, 0, alpha).requires_grad());
}

class WeightStraightThrough : public testing::TestWithParam<std::tuple<at::ScalarType, int>> {};
INSTANTIATE_TEST_SUITE_P(TypesBits, WeightStraightThrough,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                                          testing::Values(4, 8)));

TEST_P(WeightStraightThrough, ClipEqualsAutogradOfComposedOperations) {
  at::manual_seed(1);
  const auto [type, bits] = GetParam();
  const at::Tensor w = at::randn({7, 131}).to(type);
  w[3] = 0;
  const at::Tensor clip = (at::rand({7}) * 0.5 + 0.5).requires_grad_();
  const at::Tensor weights = at::randn({7, 131});
  const at::Tensor y = fake_quantize_weight_st(w, bits, clip, at::kBFloat16);
  const at::Tensor expected = composed::fake_quantize(w, bits, 0, clip.unsqueeze(1), at::kBFloat16);
  EXPECT_TRUE(at::equal(y, expected));
  EXPECT_TRUE(at::equal(
      y, quantize_weight(w, bits, weight_scales(w, bits, clip)).dequantize(at::kBFloat16)));
  expect_close(gradients(y, weights, {clip})[0], gradients(expected, weights, {clip})[0], 1e-4);
}

/// OmniQuant's formula on whole matrices, as its authors write it.
at::Tensor omniquant(const at::Tensor& w, int bits, const at::Tensor& low, const at::Tensor& high) {
  const at::Tensor wide = w.to(at::kFloat);
  const at::Tensor clamped =
      at::clamp(wide, (low * wide.amin(1)).unsqueeze(1), (high * wide.amax(1)).unsqueeze(1));
  const at::Tensor absmax = at::maximum(clamped.amax(1), clamped.amin(1).abs()).unsqueeze(1);
  const at::Tensor scale =
      at::where(absmax == 0, at::ones_like(absmax), absmax / static_cast<double>(q_max(bits)));
  const at::Tensor quotient = clamped / scale;
  const at::Tensor rounded = (quotient.round() - quotient).detach() + quotient;
  return rounded.clamp(q_min(bits), q_max(bits)) * scale;
}

TEST_P(WeightStraightThrough, ClampEqualsAutogradOfComposedOperations) {
  at::manual_seed(1);
  const auto [type, bits] = GetParam();
  const at::Tensor w = at::randn({9, 131}).to(type);
  w[2] = 0;
  w[3].abs_();
  w[4] = -w[4].abs();
  w[5][7] = w[5].abs().max() * 2;  // both bounds set the scale
  w[5][9] = -w[5][7];
  const at::Tensor low = (at::rand({9}) * 0.5 + 0.5).requires_grad_();
  const at::Tensor high = (at::rand({9}) * 0.5 + 0.5).requires_grad_();
  {
    const c10::NoGradGuard no_grad;
    low[5] = high[5];
    low[6] = 1;  // leaves its side as it is
    high[7] = 1.5;
  }
  const at::Tensor weights = at::randn({9, 131});
  const at::Tensor y = fake_quantize_clamped_weight_st(w, bits, low, high, at::kFloat);
  const at::Tensor expected = omniquant(w, bits, low, high);
  const at::Tensor composed =
      composed::fake_quantize_clamped_weight(w, bits, low, high, at::kFloat);
  EXPECT_TRUE(at::equal(y, expected));
  EXPECT_TRUE(at::equal(composed, expected));
  EXPECT_TRUE(at::equal(fake_quantize_clamped_weight_st(w, bits, low, high, at::kBFloat16),
                        expected.to(at::kBFloat16)));
  const auto wanted = gradients(expected, weights, {low, high});
  for (const at::Tensor& result : {y, composed}) {
    const auto found = gradients(result, weights, {low, high});
    expect_close(found[0], wanted[0], 1e-4);
    expect_close(found[1], wanted[1], 1e-4);
  }
}

TEST(ClampedWeight, ByHand) {
  // Clamped to [-0.5, 3.5]: scale 0.5, codes 7, -1 and 1.
  const at::Tensor w = at::tensor({7.0F, -1.0F, 0.6F}).unsqueeze(0);
  const at::Tensor low = at::full({1}, 0.5).requires_grad_();
  const at::Tensor high = at::full({1}, 0.5).requires_grad_();
  const at::Tensor y = fake_quantize_clamped_weight_st(w, 4, low, high, at::kFloat);
  EXPECT_TRUE(at::equal(y, at::tensor({3.5F, -0.5F, 0.5F}).unsqueeze(0)));
  const auto found = gradients(y, at::tensor({1.0F, 10.0F, 100.0F}), {low, high});
  EXPECT_NEAR(found[0].item<double>(), 10 * -1, 1e-5);
  EXPECT_NEAR(found[1].item<double>(), (1 + 100 * (1 - 1.2) / 7) * 7, 1e-4);
}

TEST(ClampedWeight, BoundsThatCrossPutTheRowAtTheUpperOne) {
  const at::Tensor w = at::ones({1, 3});
  const at::Tensor low = at::full({1}, 0.9).requires_grad_();
  const at::Tensor high = at::full({1}, 0.5).requires_grad_();
  const at::Tensor y = fake_quantize_clamped_weight_st(w, 8, low, high, at::kFloat);
  EXPECT_TRUE(at::allclose(y, at::full({1, 3}, 0.5)));
  const auto found = gradients(y, at::ones({1, 3}), {low, high});
  EXPECT_EQ(found[0].item<double>(), 0);
  EXPECT_NEAR(found[1].item<double>(), 3, 1e-5);
}

TEST(Hadamard, IsOrthogonalSelfAdjointAndComposedAlike) {
  for (const int64_t order : {1, 2, 8, 64, 256}) {
    const at::Tensor x = at::randn({3, 2, order}).requires_grad_();
    const at::Tensor weights = at::randn({3, 2, order});
    const at::Tensor y = hadamard(x);
    EXPECT_TRUE(at::equal(y, composed::hadamard(x)));
    EXPECT_TRUE(at::allclose(hadamard(y), x, 1e-5, 1e-5));
    EXPECT_TRUE(at::equal(gradients(y, weights, {x})[0], hadamard(weights)));
  }
  const at::Tensor x = at::randn({4, 32}).to(at::kBFloat16).t().contiguous().t();
  EXPECT_TRUE(at::equal(hadamard(x), composed::hadamard(x.to(at::kFloat)).to(at::kBFloat16)));
}

TEST(Hadamard, RefusesOtherOrders) {
  EXPECT_THROW(hadamard(at::randn({2, 24})), Error);
}

}  // namespace
}  // namespace blockptq
