#include "kernels/row_range.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/row_range_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using RowRangeTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, RowRangeTest, every_isa(), isa_test_name);

constexpr int64_t kRows = 3;

TEST_P(RowRangeTest, AbsmaxOfOddSizesInGroups) {
  std::mt19937 random(1);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t cols : kOddSizes) {
      const OddBuffer in = random_values(random, type, kRows * cols);
      for (const int64_t group : {int64_t{1}, int64_t{5}, int64_t{32}, int64_t{100}, cols}) {
        const int64_t groups = (cols + group - 1) / group;
        std::vector<float> maxima(static_cast<size_t>(kRows * groups));
        std::vector<float> expected(maxima.size());
        group_absmax(in.data(), type, {kRows, cols, group}, maxima.data());
        group_absmax_reference(in.data(), type, {kRows, cols, group}, expected.data());
        ASSERT_EQ(maxima, expected) << cols << " columns in groups of " << group;
      }
    }
  }
}

TEST_P(RowRangeTest, RangeOfOddSizes) {
  std::mt19937 random(2);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t cols : kOddSizes) {
      const OddBuffer in = random_values(random, type, kRows * cols);
      std::vector<float> minima(kRows);
      std::vector<float> maxima(kRows);
      std::vector<float> expected_minima(kRows);
      std::vector<float> expected_maxima(kRows);
      row_range(in.data(), type, kRows, cols, minima.data(), maxima.data());
      row_range_reference(in.data(), type, kRows, cols, expected_minima.data(),
                          expected_maxima.data());
      ASSERT_EQ(minima, expected_minima) << cols;
      ASSERT_EQ(maxima, expected_maxima) << cols;
    }
  }
}

TEST_P(RowRangeTest, NanAnywhere) {
  constexpr int64_t kCols = 67;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float special : {nan, -nan}) {
    for (int64_t at = 0; at < kCols; ++at) {
      std::vector<float> in(kCols, -2);
      in[static_cast<size_t>(at)] = special;
      in[static_cast<size_t>((at + 20) % kCols)] = -infinity;
      float min = 0;
      float max = 0;
      group_absmax(in.data(), FloatType::f32, {1, kCols, kCols}, &max);
      EXPECT_TRUE(std::isnan(max)) << at;
      row_range(in.data(), FloatType::f32, 1, kCols, &min, &max);
      EXPECT_EQ(min, -infinity) << at;
      EXPECT_EQ(max, -2) << at;
    }
  }
}

TEST(RowRangeReference, ByHand) {
  const std::vector<float> in = {1, -4, 0.5F, 2, 3, -3.5F};
  std::vector<float> absmax(4);
  group_absmax_reference(in.data(), FloatType::f32, {2, 3, 2}, absmax.data());
  EXPECT_EQ(absmax, (std::vector<float>{4, 0.5F, 3, 3.5F}));
  std::vector<float> minima(2);
  std::vector<float> maxima(2);
  row_range_reference(in.data(), FloatType::f32, 2, 3, minima.data(), maxima.data());
  EXPECT_EQ(minima, (std::vector<float>{-4, -3.5F}));
  EXPECT_EQ(maxima, (std::vector<float>{1, 3}));
}

}  // namespace
}  // namespace blockptq::kernels
