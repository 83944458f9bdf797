#include "kernels/descend_codes.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/reference/descend_codes_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using DescendCodesTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, DescendCodesTest, every_isa(), isa_test_name);

/// Channels that weigh tokens at random, codes of plain rounding, and what they leave wrong.
struct Case {
  int64_t channels;
  int64_t features;
  int64_t tokens;
  int bits;
  std::vector<float> inputs;     // x [I, T]
  std::vector<float> slopes;     // a [O, T]
  std::vector<float> weights;    // a^2
  std::vector<float> targets;    // w [O, I]
  std::vector<float> ridges;     // [O]
  std::vector<float> scales;     // [O]
  std::vector<float> curvature;  // [O, I]
  std::vector<float> gradients;  // z [O, T]
  std::vector<int8_t> codes;     // [O, I]

  Case(int64_t o, int64_t i, int64_t t, int code_bits, unsigned seed)
      : channels(o), features(i), tokens(t), bits(code_bits) {
    std::mt19937 random(seed);
    inputs = random_floats(random, features * tokens);
    const std::vector<float> common = random_floats(random, tokens);
    for (size_t k = 0; k < inputs.size(); ++k) {  // features of one mind: their errors add up
      inputs[k] += 2 * common[k % common.size()];
    }
    slopes = random_floats(random, channels * tokens);
    targets = random_floats(random, channels * features);
    ridges.assign(static_cast<size_t>(channels), 0.5F);
    scales.assign(static_cast<size_t>(channels), bits == 4 ? 0.4F : 0.03F);
    for (const float slope : slopes) {
      weights.push_back(slope * slope);
    }
    const float q_max = static_cast<float>((1 << (bits - 1)) - 1);
    for (int64_t k = 0; k < channels * features; ++k) {
      const float scale = scales[static_cast<size_t>(k / features)];
      const float code = std::nearbyint(targets[static_cast<size_t>(k)] / scale);
      codes.push_back(static_cast<int8_t>(std::clamp(code, -q_max - 1, q_max)));
    }
    for (int64_t k = 0; k < channels * features; ++k) {
      double sum = ridges.front();
      for (int64_t token = 0; token < tokens; ++token) {
        const float x = input(k % features, token);
        sum += static_cast<double>(x) * x *
               weights[static_cast<size_t>(k / features * tokens + token)];
      }
      curvature.push_back(static_cast<float>(sum));
    }
    for (int64_t k = 0; k < channels * tokens; ++k) {
      gradients.push_back(static_cast<float>(slopes[static_cast<size_t>(k)] *
                                             residual(codes, k / tokens, k % tokens)));
    }
  }

  float input(int64_t i, int64_t t) const { return inputs[static_cast<size_t>(i * tokens + t)]; }
  double error(const std::vector<int8_t>& some, int64_t o, int64_t i) const {
    const auto at = static_cast<size_t>(o * features + i);
    return targets[at] - static_cast<double>(scales[static_cast<size_t>(o)]) * some[at];
  }
  /// a_t sum_i x_it (w_i - s q_i).
  double residual(const std::vector<int8_t>& some, int64_t o, int64_t t) const {
    double sum = 0;
    for (int64_t i = 0; i < features; ++i) {
      sum += input(i, t) * error(some, o, i);
    }
    return sum * slopes[static_cast<size_t>(o * tokens + t)];
  }
  /// What the descent minimises.
  double objective(const std::vector<int8_t>& some, int64_t o) const {
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      sum += residual(some, o, t) * residual(some, o, t);
    }
    for (int64_t i = 0; i < features; ++i) {
      sum += ridges[static_cast<size_t>(o)] * error(some, o, i) * error(some, o, i);
    }
    return sum;
  }
  CodeDescent problem() const {
    return {features,         tokens,         bits,          inputs.data(), weights.data(),
            curvature.data(), targets.data(), ridges.data(), scales.data()};
  }
};

TEST_P(DescendCodesTest, EqualsTheReferenceForOddSizes) {
  for (const int bits : {4, 8}) {
    for (const int64_t channels : {1, 3, 4, 7, 8, 9, 16, 17, 33}) {
      for (const int64_t features : {1, 5, 24}) {
        for (const int64_t tokens : {16, 48, 128}) {
          Case expected(channels, features, tokens, bits, 1);
          Case actual = expected;
          descend_codes_reference(expected.problem(), 0, channels, expected.gradients.data(),
                                  expected.codes.data());
          descend_codes(actual.problem(), 0, channels, actual.gradients.data(),
                        actual.codes.data());
          ASSERT_EQ(actual.codes, expected.codes) << channels << " x " << features;
          ASSERT_EQ(actual.gradients, expected.gradients) << channels << " x " << features;
        }
      }
    }
  }
}

TEST_P(DescendCodesTest, NoSingleCodeCanBeBetterAfterEnoughSweeps) {
  Case descent(9, 20, 64, 4, 2);
  const std::vector<int8_t> start = descent.codes;
  double before = 0;
  double after = 0;
  for (int sweep = 0; sweep < 20; ++sweep) {
    descend_codes(descent.problem(), 0, descent.channels, descent.gradients.data(),
                  descent.codes.data());
  }
  for (int64_t o = 0; o < descent.channels; ++o) {
    const double least = descent.objective(descent.codes, o);
    EXPECT_LE(least, descent.objective(start, o));
    before += descent.objective(start, o);
    after += least;
    for (int64_t i = 0; i < descent.features; ++i) {
      for (const int change : {-1, 1}) {
        std::vector<int8_t> other = descent.codes;
        int8_t& code = other[static_cast<size_t>(o * descent.features + i)];
        code = static_cast<int8_t>(std::clamp(code + change, -8, 7));
        EXPECT_GE(descent.objective(other, o), least * (1 - 1e-5)) << o << " " << i;
      }
    }
  }
  EXPECT_LT(after, 0.9 * before);
}

TEST_P(DescendCodesTest, LeavesOtherChannelsAndDeadFeaturesAlone) {
  Case descent(6, 7, 32, 4, 3);
  for (int64_t o = 0; o < descent.channels; ++o) {
    descent.curvature[static_cast<size_t>(o * descent.features + 2)] = 0;
  }
  const Case before = descent;
  descend_codes(descent.problem(), 2, 5, descent.gradients.data(), descent.codes.data());
  for (int64_t o = 0; o < descent.channels; ++o) {
    for (int64_t i = 0; i < descent.features; ++i) {
      const auto at = static_cast<size_t>(o * descent.features + i);
      if (i == 2 || o < 2 || o >= 5) {
        EXPECT_EQ(descent.codes[at], before.codes[at]) << o << " " << i;
      }
    }
  }
  EXPECT_NE(descent.codes, before.codes);
}

}  // namespace
}  // namespace blockptq::kernels
