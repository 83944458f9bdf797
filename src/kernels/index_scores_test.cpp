#include "kernels/index_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/index_scores_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using IndexScoresTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, IndexScoresTest, every_isa(), isa_test_name);

constexpr int64_t kQueries = 3;
constexpr int64_t kGap = 5;  // between the rows of the output

TEST_P(IndexScoresTest, OddSizesEqualTheReferenceAndTheClosedForm) {
  std::mt19937 random(1);
  for (const int64_t heads : {1, 3, 64}) {
    for (const int64_t keys : kOddSizes) {
      const int64_t stride = keys + kGap;
      const std::vector<float> dots = random_floats(random, kQueries * heads * keys);
      const std::vector<float> weights = random_floats(random, kQueries * heads);
      std::vector<float> out(static_cast<size_t>(kQueries * stride - kGap), -7);
      std::vector<float> expected = out;
      index_scores(dots.data(), weights.data(), kQueries, heads, keys, out.data(), stride);
      index_scores_reference(dots.data(), weights.data(), kQueries, heads, keys, expected.data(),
                             stride);
      EXPECT_EQ(out, expected) << heads << " heads, " << keys << " keys";
      for (int64_t q = 0; q < kQueries; ++q) {
        for (int64_t k = 0; k < keys; ++k) {
          double exact = 0;
          double magnitude = 0;
          for (int64_t h = 0; h < heads; ++h) {
            const double dot = dots[(q * heads + h) * keys + k];
            const double term = weights[q * heads + h] * std::max(dot, 0.0);
            exact += term;
            magnitude += std::abs(term);
          }
          ASSERT_NEAR(out[q * stride + k], exact, static_cast<double>(heads) * magnitude * 0x1p-24);
        }
      }
    }
  }
}

TEST_P(IndexScoresTest, NanStaysNan) {
  for (const int64_t keys : kOddSizes) {
    std::vector<float> dots(static_cast<size_t>(2 * keys), 1);
    dots.back() = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> weights = {1, 2};
    std::vector<float> out(static_cast<size_t>(keys));
    index_scores(dots.data(), weights.data(), 1, 2, keys, out.data(), keys);
    EXPECT_TRUE(std::isnan(out.back())) << keys;
    if (keys > 1) {
      EXPECT_EQ(out.front(), 3) << keys;
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
