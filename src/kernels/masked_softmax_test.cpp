#include "kernels/masked_softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/masked_softmax_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using MaskedSoftmaxTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, MaskedSoftmaxTest, every_isa(), isa_test_name);

constexpr int64_t kHeads = 2;
constexpr int64_t kQueries = 3;
constexpr float kScale = 0.7F;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool sees(const Visibility& visible, int64_t query, int64_t key) {
  return visible.bytes == nullptr ? key <= visible.first_query + query
                                  : visible.bytes[query * visible.stride + key] != 0;
}

/// One row against the closed form in double.
void expect_softmax(const OddBuffer& out, FloatType out_type, const OddBuffer& scores,
                    FloatType in_type, int64_t row, int64_t keys, const Visibility& visible) {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;
  const auto score = [&](int64_t key) {
    return kScale * load_as_double(scores.data(), in_type, row * keys + key);
  };
  for (int64_t key = 0; key < keys; ++key) {
    max = sees(visible, row % kQueries, key) ? std::max(max, score(key)) : max;
  }
  for (int64_t key = 0; key < keys; ++key) {
    sum += sees(visible, row % kQueries, key) ? std::exp(score(key) - max) : 0;
  }
  for (int64_t key = 0; key < keys; ++key) {
    const double value = load_as_double(out.data(), out_type, row * keys + key);
    if (!sees(visible, row % kQueries, key)) {
      ASSERT_EQ(value, 0) << keys;
      continue;
    }
    const double exact = std::exp(score(key) - max) / sum;
    // The exponent is rounded twice, the rest of the fp32 arithmetic four times.
    const double relative = (max - score(key)) * 0x1p-23 + 4e-7;
    ASSERT_NEAR(value, exact, rounding_bound(exact, out_type, relative) + 0x1p-126) << keys;
  }
}

void expect_softmax(const OddBuffer& scores, FloatType in_type, int64_t keys,
                    const Visibility& visible) {
  for (const FloatType out_type : kFloatTypes) {
    OddBuffer out(kHeads * kQueries * keys * element_size(out_type));
    std::fill_n(out.data(), kHeads * kQueries * keys * element_size(out_type), uint8_t{1});
    OddBuffer expected(kHeads * kQueries * keys * element_size(out_type));
    std::vector<float> row(static_cast<size_t>(keys));
    masked_softmax(scores.data(), in_type, kHeads, kQueries, keys, kScale, visible, out_type,
                   out.data());
    masked_softmax_reference(scores.data(), in_type, kHeads, kQueries, keys, kScale, visible,
                             out_type, expected.data(), row.data());
    for (int64_t i = 0; i < kHeads * kQueries; ++i) {
      expect_softmax(out, out_type, scores, in_type, i, keys, visible);
    }
    for (int64_t i = 0; i < kHeads * kQueries * keys; ++i) {
      const double reference = load_as_double(expected.data(), out_type, i);
      ASSERT_NEAR(load_as_double(out.data(), out_type, i), reference,
                  2 * rounding_bound(reference, out_type, 3e-7) + 0x1p-126);
    }
    if (in_type == out_type) {
      OddBuffer in_place = scores;
      masked_softmax(in_place.data(), in_type, kHeads, kQueries, keys, kScale, visible, out_type,
                     in_place.data());
      ASSERT_EQ(in_place, out) << keys;
    }
  }
}

TEST_P(MaskedSoftmaxTest, OddSizesCausal) {
  std::mt19937 random(1);
  for (const FloatType in_type : kFloatTypes) {
    for (const int64_t keys : kOddSizes) {
      const OddBuffer scores = random_values(random, in_type, kHeads * kQueries * keys, 5);
      for (const int64_t first_query : {int64_t{-2}, int64_t{0}, keys / 2, keys - 1, keys + 9}) {
        expect_softmax(scores, in_type, keys, {.first_query = first_query});
      }
    }
  }
}

TEST_P(MaskedSoftmaxTest, OddSizesOfBytes) {
  std::mt19937 random(2);
  std::vector<int64_t> sizes(kOddSizes.begin(), kOddSizes.end());
  sizes.insert(sizes.end(), {1023, 1024, 1025, 3000});
  for (const FloatType in_type : kFloatTypes) {
    for (const int64_t keys : sizes) {
      const int64_t stride = keys + 3;
      OddBuffer visible(2 * stride + keys);
      for (int64_t i = 0; i < 2 * stride + keys; ++i) {
        visible.data()[i] = static_cast<uint8_t>(random() % 3 == 0);
      }
      std::fill_n(visible.data() + stride, keys, uint8_t{0});  // query 1 sees nothing
      const OddBuffer scores = random_values(random, in_type, kHeads * kQueries * keys, 30);
      expect_softmax(scores, in_type, keys, {.bytes = visible.data(), .stride = stride});
    }
  }
}

TEST_P(MaskedSoftmaxTest, HiddenNanIsZeroAndMinusInfinityCountsAsHidden) {
  for (const int64_t keys : kOddSizes) {
    for (const float hidden : {kNan, kInfinity, -kInfinity}) {
      std::vector<float> row(static_cast<size_t>(keys), hidden);
      row.front() = 2;
      std::vector<uint8_t> visible(row.size(), hidden == -kInfinity ? 1 : 0);
      visible.front() = 1;
      masked_softmax(row.data(), FloatType::f32, 1, 1, keys, 1, {.bytes = visible.data()},
                     FloatType::f32, row.data());
      EXPECT_EQ(row.front(), 1);
      EXPECT_EQ(std::count(row.begin(), row.end(), 0.0F), keys - 1);
    }
    std::vector<float> nothing(static_cast<size_t>(keys), -kInfinity);
    masked_softmax(nothing.data(), FloatType::f32, 1, 1, keys, 1, {.first_query = keys},
                   FloatType::f32, nothing.data());
    EXPECT_EQ(std::count(nothing.begin(), nothing.end(), 0.0F), keys);
  }
}

TEST_P(MaskedSoftmaxTest, VisibleNanAndInfinityMakeTheRowNan) {
  for (const int64_t keys : kOddSizes) {
    for (const float bad : {kNan, kInfinity}) {
      for (const int64_t at : {int64_t{0}, keys / 2, keys - 1}) {
        std::vector<float> row(static_cast<size_t>(keys + 1), 1);
        row[static_cast<size_t>(at)] = bad;
        masked_softmax(row.data(), FloatType::f32, 1, 1, keys + 1, 1, {.first_query = keys - 1},
                       FloatType::f32, row.data());
        EXPECT_TRUE(std::isnan(row[static_cast<size_t>(at)])) << keys;
        EXPECT_EQ(row.back(), 0) << keys;
        if (std::isnan(bad)) {
          EXPECT_TRUE(std::all_of(row.begin(), row.end() - 1, [](float p) { return p != p; }));
        }
      }
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
