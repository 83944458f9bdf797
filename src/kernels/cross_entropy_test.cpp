#include "kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/convert.h"
#include "kernels/reference/cross_entropy_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using CrossEntropyTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, CrossEntropyTest, every_isa(), isa_test_name);

double log_sum_exp(const SoftmaxStats& stats) {
  return static_cast<double>(stats.max) + std::log(stats.sum);
}

/// The closed form in double.
double log_sum_exp(const void* logits, FloatType type, int64_t begin, int64_t width) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t i = begin; i < begin + width; ++i) {
    max = std::max(max, load_as_double(logits, type, i));
  }
  double sum = 0;
  for (int64_t i = begin; i < begin + width; ++i) {
    sum += std::exp(load_as_double(logits, type, i) - max);
  }
  return max + std::log(sum);
}

/// Logits of `type`, normally distributed.
OddBuffer random_logits(int64_t count, FloatType type, float deviation) {
  std::mt19937 random(static_cast<uint32_t>(count));
  std::normal_distribution<float> normal(3, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  std::generate(values.begin(), values.end(), [&] { return normal(random); });
  OddBuffer logits(count * element_size(type));
  convert(values.data(), FloatType::f32, count, type, logits.data());
  return logits;
}

TEST_P(CrossEntropyTest, OddSizesAgainstReferenceAndClosedForm) {
  constexpr int64_t kTokens = 3;
  std::vector<int64_t> widths(kOddSizes.begin(), kOddSizes.end());
  widths.insert(widths.end(), {1023, 1024, 1025, 5000});
  for (const FloatType type : kFloatTypes) {
    for (const int64_t width : widths) {
      for (const float deviation : {0.1F, 4.0F, 60.0F}) {
        const int64_t stride = width + 5;
        const OddBuffer logits = random_logits(kTokens * stride, type, deviation);
        std::vector<SoftmaxStats> stats(kTokens);
        std::vector<SoftmaxStats> expected(kTokens);
        accumulate_softmax(logits.data(), type, kTokens, width, stride, stats.data());
        accumulate_softmax_reference(logits.data(), type, kTokens, width, stride, expected.data());
        for (int64_t t = 0; t < kTokens; ++t) {
          const auto& [max, sum] = stats[static_cast<size_t>(t)];
          const SoftmaxStats& reference = expected[static_cast<size_t>(t)];
          ASSERT_EQ(max, reference.max) << width;
          ASSERT_NEAR(sum / reference.sum, 1, 1e-6) << width;
          ASSERT_NEAR(log_sum_exp({max, sum}), log_sum_exp(logits.data(), type, t * stride, width),
                      1e-6);
          ASSERT_NEAR(log_sum_exp(reference), log_sum_exp(logits.data(), type, t * stride, width),
                      1e-7);
        }
      }
    }
  }
}

/// Every exponential by itself: two logits, so that the sum is 1 + exp(x).
TEST_P(CrossEntropyTest, Exponential) {
  for (int i = 0; i < 30000; ++i) {
    const float x = static_cast<float>(i) * -0.0037F;
    const std::vector<float> logits = {0, x};
    SoftmaxStats one;
    accumulate_softmax(logits.data(), FloatType::f32, 1, 1, 1, &one);
    SoftmaxStats both;
    accumulate_softmax(logits.data(), FloatType::f32, 1, 2, 2, &both);
    const double exact = std::exp(static_cast<double>(x));
    // The lanes' sum is exact in double, so that the term itself shows.
    ASSERT_NEAR(both.sum - one.sum, exact, exact * 2e-7 + 0x1p-52 + 1.2e-38) << x;
  }
}

TEST_P(CrossEntropyTest, TileByTileEqualsWhole) {
  constexpr int64_t kWidth = 5000;
  const OddBuffer logits = random_logits(kWidth, FloatType::bf16, 4);
  for (const int64_t tile : {1, 7, 100, 1024, 4999}) {
    SoftmaxStats stats;
    for (int64_t begin = 0; begin < kWidth; begin += tile) {
      const int64_t width = std::min(tile, kWidth - begin);
      accumulate_softmax(logits.data() + 2 * begin, FloatType::bf16, 1, width, width, &stats);
    }
    EXPECT_NEAR(log_sum_exp(stats), log_sum_exp(logits.data(), FloatType::bf16, 0, kWidth), 1e-6);
  }
}

TEST_P(CrossEntropyTest, MinusInfinityCountsAsZero) {
  for (const int64_t width : kOddSizes) {
    std::vector<float> logits(static_cast<size_t>(width), -kInfinity);
    SoftmaxStats stats;
    accumulate_softmax(logits.data(), FloatType::f32, 1, width, width, &stats);
    EXPECT_EQ(stats.max, -kInfinity);
    EXPECT_EQ(stats.sum, 0);
    logits.back() = -5;
    accumulate_softmax(logits.data(), FloatType::f32, 1, width, width, &stats);
    EXPECT_EQ(stats.max, -5);
    EXPECT_EQ(stats.sum, 1);
    logits.back() = -kInfinity;
    accumulate_softmax(logits.data(), FloatType::f32, 1, width, width, &stats);
    EXPECT_EQ(stats.max, -5);
    EXPECT_EQ(stats.sum, 1);
  }
}

TEST_P(CrossEntropyTest, NanAndInfinityMakeTheSumNan) {
  for (const int64_t width : kOddSizes) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity}) {
      for (const float other : {-kInfinity, 1.0F}) {
        for (const int64_t at : {int64_t{0}, width / 2, width - 1}) {
          std::vector<float> logits(static_cast<size_t>(width), other);
          logits[static_cast<size_t>(at)] = bad;
          SoftmaxStats stats;
          accumulate_softmax(logits.data(), FloatType::f32, 1, width, width, &stats);
          EXPECT_TRUE(std::isnan(stats.sum)) << width << " " << at;
        }
      }
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
