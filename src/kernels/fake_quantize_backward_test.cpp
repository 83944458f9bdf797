#include "kernels/fake_quantize_backward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/fake_quantize_backward_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using FakeQuantizeBackwardTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, FakeQuantizeBackwardTest, every_isa(), isa_test_name);

constexpr int64_t kRows = 3;

/// Sums of up to 257 terms of magnitude up to about `term`.
void expect_near(const std::vector<float>& found, const std::vector<float>& expected, float term) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], 2e-5F * term) << i;
  }
}

TEST_P(FakeQuantizeBackwardTest, OddSizesInGroups) {
  std::mt19937 random(1);
  for (const FloatType type : kFloatTypes) {
    for (const FloatType grad_type : kFloatTypes) {
      for (const int64_t cols : kOddSizes) {
        const OddBuffer in = random_values(random, type, kRows * cols);
        const OddBuffer grad = random_values(random, grad_type, kRows * cols);
        for (const int64_t group : {int64_t{33}, cols}) {
          const RowGroups shape = {kRows, cols, group};
          const std::vector<float> scales =
              random_scales(random, kRows * ((cols + group - 1) / group), 8);
          OddBuffer grad_in(kRows * cols * element_size(type));
          OddBuffer expected_in(kRows * cols * element_size(type));
          std::vector<float> sums(scales.size());
          std::vector<float> expected(scales.size());
          fake_quantize_rows_backward(in.data(), type, shape, 8, scales.data(), grad.data(),
                                      grad_type, grad_in.data(), sums.data());
          fake_quantize_rows_backward_reference(in.data(), type, shape, 8, scales.data(),
                                                grad.data(), grad_type, expected_in.data(),
                                                expected.data());
          ASSERT_EQ(grad_in, expected_in) << cols << " columns in groups of " << group;
          expect_near(sums, expected, 128);
          std::vector<float> alone(scales.size());
          fake_quantize_rows_backward(in.data(), type, shape, 8, scales.data(), grad.data(),
                                      grad_type, nullptr, alone.data());
          ASSERT_EQ(alone, sums);
        }
      }
    }
  }
}

TEST_P(FakeQuantizeBackwardTest, BoundedRows) {
  std::mt19937 random(2);
  const std::vector<float> low = {-0.5F, -1, -2};
  const std::vector<float> high = {1.5F, 0.1F, -3};
  for (const FloatType type : kFloatTypes) {
    for (const FloatType grad_type : kFloatTypes) {
      for (const int64_t cols : kOddSizes) {
        const OddBuffer in = random_values(random, type, kRows * cols);
        const OddBuffer grad = random_values(random, grad_type, kRows * cols);
        const std::vector<float> scales = random_scales(random, kRows, 4);
        std::vector<float> found[3];
        std::vector<float> expected[3];
        for (int i = 0; i < 3; ++i) {
          found[i].resize(kRows);
          expected[i].resize(kRows);
        }
        bounded_rows_backward(in.data(), type, kRows, cols, scales.data(),
                              {low.data(), high.data()}, grad.data(), grad_type,
                              {found[0].data(), found[1].data(), found[2].data()});
        bounded_rows_backward_reference(
            in.data(), type, kRows, cols, scales.data(), {low.data(), high.data()}, grad.data(),
            grad_type, {expected[0].data(), expected[1].data(), expected[2].data()});
        for (int i = 0; i < 3; ++i) {
          expect_near(found[i], expected[i], 8);
        }
      }
    }
  }
}

TEST_P(FakeQuantizeBackwardTest, MaximaWithTies) {
  std::mt19937 random(3);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t cols : kOddSizes) {
      for (const int64_t group : {int64_t{33}, cols}) {
        const RowGroups shape = {kRows, cols, group};
        const size_t groups = static_cast<size_t>(kRows * ((cols + group - 1) / group));
        // Few values, so that many elements are as large as the largest.
        OddBuffer in(kRows * cols * element_size(type));
        visit_float_type(type, [&](auto constant) {
          for (int64_t i = 0; i < kRows * cols; ++i) {
            const auto value = static_cast<float>(static_cast<int>(random() % 9) - 4);
            store_element<decltype(constant)::value>(value, in.data(), i);
          }
        });
        std::vector<float> maxima(groups, 4);
        maxima[0] = 0;
        const std::vector<float> amounts = random_floats(random, static_cast<int64_t>(groups));
        OddBuffer grad = random_values(random, type, kRows * cols);
        OddBuffer expected = grad;
        add_at_maxima(in.data(), type, shape, maxima.data(), amounts.data(), grad.data());
        add_at_maxima_reference(in.data(), type, shape, maxima.data(), amounts.data(),
                                expected.data());
        ASSERT_EQ(grad, expected) << cols << " columns in groups of " << group;
      }
    }
  }
}

TEST(FakeQuantizeBackwardReference, ByHand) {
  // Codes 1, -1, 7 (beyond the grid) and 0 at scale 0.5.
  const std::vector<float> in = {0.6F, -0.4F, 9, 0.125F};
  const std::vector<float> grad = {1, 10, 100, 1000};
  const float scale = 0.5F;
  std::vector<float> grad_in(4);
  float sum = 0;
  fake_quantize_rows_backward_reference(in.data(), FloatType::f32, {1, 4, 4}, 4, &scale,
                                        grad.data(), FloatType::f32, grad_in.data(), &sum);
  EXPECT_EQ(grad_in, (std::vector<float>{1, 10, 0, 1000}));
  EXPECT_NEAR(sum, (1 - 1.2) + 10 * (-1 + 0.8) + 100 * 7 + 1000 * (0 - 0.25), 1e-4);
  const float max = 9;
  const float amount = 3;
  add_at_maxima_reference(in.data(), FloatType::f32, {1, 4, 4}, &max, &amount, grad_in.data());
  EXPECT_EQ(grad_in, (std::vector<float>{1, 10, 3, 1000}));
}

}  // namespace
}  // namespace blockptq::kernels
