#include "kernels/round_features.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/reference/round_features_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using RoundFeaturesTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, RoundFeaturesTest, every_isa(), isa_test_name);

/// Features of some channels of a wider buffer, and a matrix with a heavy diagonal.
struct Case {
  int64_t features;
  int64_t channels;
  int bits;
  std::vector<float> matrix;   // [J, J]
  std::vector<float> start;    // [J, R]
  std::vector<float> pending;  // [J, R]
  std::vector<float> scales;   // [R]
  std::vector<float> losses;   // [R]
  std::vector<int8_t> codes;   // [J, R]

  Case(int64_t j, int64_t r, int code_bits, unsigned seed)
      : features(j), channels(r), bits(code_bits) {
    std::mt19937 random(seed);
    matrix = random_floats(random, features * features);
    for (int64_t k = 0; k < features; ++k) {
      matrix[static_cast<size_t>(k * features + k)] = 2 + std::abs(matrix[static_cast<size_t>(k)]);
    }
    start = random_floats(random, features * channels);
    pending = random_floats(random, features * channels);
    losses = random_floats(random, channels);
    for (const float value : random_floats(random, channels)) {
      scales.push_back((bits == 4 ? 0.3F : 0.02F) * (1 + std::abs(value)));
    }
    codes.resize(start.size());
  }
  float m(int64_t j, int64_t i) const { return matrix[static_cast<size_t>(j * features + i)]; }
  size_t at(int64_t j, int64_t r) const { return static_cast<size_t>(j * channels + r); }
  FeatureRounding problem() {
    return {features,     bits,     matrix.data(), features,     1, start.data(), pending.data(),
            codes.data(), channels, scales.data(), losses.data()};
  }
  bool operator==(const Case&) const = default;
};

TEST_P(RoundFeaturesTest, EqualsTheReferenceForOddSizes) {
  for (const int bits : {4, 8}) {
    for (const int64_t channels : kOddSizes) {
      for (const int64_t features : {1, 2, 7, 31, 64}) {
        Case expected(features, channels, bits, 1);
        Case actual = expected;
        round_features_reference(expected.problem(), 0, channels);
        round_features(actual.problem(), 0, channels);
        ASSERT_EQ(actual, expected) << features << " x " << channels;
      }
    }
  }
}

TEST_P(RoundFeaturesTest, ReadsTheMatrixByColumnsToo) {
  Case expected(20, 40, 4, 2);
  Case actual = expected;
  for (int64_t j = 0; j < 20; ++j) {
    for (int64_t i = 0; i < 20; ++i) {
      actual.matrix[static_cast<size_t>(i * 20 + j)] = expected.m(j, i);
    }
  }
  FeatureRounding problem = actual.problem();
  problem.row_stride = 1;
  problem.column_stride = 20;
  round_features(problem, 0, 40);
  round_features_reference(expected.problem(), 0, 40);
  EXPECT_EQ(actual.codes, expected.codes);
  EXPECT_EQ(actual.losses, expected.losses);
}

TEST_P(RoundFeaturesTest, LeavesOtherChannelsAlone) {
  Case rounded(16, 50, 8, 3);
  const Case before = rounded;
  round_features(rounded.problem(), 3, 45);
  for (int64_t j = 0; j < 16; ++j) {
    for (const int64_t r : {0, 2, 45, 49}) {
      EXPECT_EQ(rounded.pending[before.at(j, r)], before.pending[before.at(j, r)]);
      EXPECT_EQ(rounded.codes[before.at(j, r)], 0);
    }
  }
  EXPECT_EQ(rounded.losses[45], before.losses[45]);
  EXPECT_NE(rounded.losses[44], before.losses[44]);
}

/// The definition in fp64: each code is the nearest one, all that came before it given.
TEST_P(RoundFeaturesTest, EveryCodeIsTheNearestGivenThoseBefore) {
  Case rounded(24, 33, 4, 4);
  const Case before = rounded;
  round_features(rounded.problem(), 0, 33);
  for (int64_t r = 0; r < 33; ++r) {
    const double scale = before.scales[static_cast<size_t>(r)];
    double loss = before.losses[static_cast<size_t>(r)];
    for (int64_t j = 23; j >= 0; --j) {
      double pending = before.pending[before.at(j, r)];
      for (int64_t i = j + 1; i < 24; ++i) {
        pending += static_cast<double>(before.m(i, j)) * rounded.pending[before.at(i, r)];
      }
      const double diagonal = before.m(j, j);
      const double v = before.start[before.at(j, r)] + pending / diagonal;
      const double q = rounded.codes[before.at(j, r)];
      const double wanted = std::clamp(v / scale, -8.0, 7.0);
      EXPECT_LE(std::abs(wanted - q), 0.5 + 1e-4) << j << " " << r;
      loss += std::pow(diagonal * (v - scale * q), 2);
      EXPECT_NEAR(rounded.pending[before.at(j, r)], before.start[before.at(j, r)] - scale * q,
                  1e-5);
    }
    EXPECT_NEAR(rounded.losses[static_cast<size_t>(r)], loss, 1e-4 * std::abs(loss));
  }
}

}  // namespace
}  // namespace blockptq::kernels
