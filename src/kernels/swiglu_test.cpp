#include "kernels/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/swiglu_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using SwigluTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, SwigluTest, every_isa(), isa_test_name);

constexpr double kRelative = 5e-7;  // of the fp32 arithmetic before the rounding
constexpr double kFlushed = 1e-36;  // |x sigmoid(x)| that may count as 0

double exact_swiglu(double gate, double up) {
  return gate < -88 ? 0 : gate / (1 + std::exp(-gate)) * up;
}

void expect_swiglu(const OddBuffer& gate, const OddBuffer& up, FloatType type, int64_t count) {
  OddBuffer out(count * element_size(type));
  OddBuffer expected(count * element_size(type));
  swiglu(gate.data(), up.data(), type, count, out.data());
  swiglu_reference(gate.data(), up.data(), type, count, expected.data());
  for (int64_t i = 0; i < count; ++i) {
    const double x = load_as_double(gate.data(), type, i);
    const double y = load_as_double(up.data(), type, i);
    const double exact = exact_swiglu(x, y);
    const double value = load_as_double(out.data(), type, i);
    const double reference = load_as_double(expected.data(), type, i);
    ASSERT_EQ(std::isnan(value), std::isnan(x)) << x << " " << i;
    ASSERT_EQ(std::isnan(reference), std::isnan(x)) << x << " " << i;
    const double limit = type == FloatType::f16 ? 65504 : 3.38e38;
    if (std::isnan(x) || std::abs(exact) > limit) {
      continue;
    }
    ASSERT_NEAR(value, exact, rounding_bound(exact, type, kRelative) + kFlushed * std::abs(y)) << x;
    ASSERT_NEAR(value, reference,
                2 * rounding_bound(reference, type, kRelative) + kFlushed * std::abs(y))
        << x;
  }
}

TEST_P(SwigluTest, EveryGateOf16Bits) {
  constexpr int64_t kCount = 65536;
  std::mt19937 random(1);
  OddBuffer gate(2 * kCount);
  for (int64_t code = 0; code < kCount; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    std::memcpy(gate.data() + 2 * code, &bits, sizeof bits);
  }
  expect_swiglu(gate, random_values(random, FloatType::bf16, kCount), FloatType::bf16, kCount);
  expect_swiglu(gate, random_values(random, FloatType::f16, kCount), FloatType::f16, kCount);
}

TEST_P(SwigluTest, GatesOfF32) {
  std::vector<float> gates = {0,
                              -0.0F,
                              -88,
                              std::nextafter(-88.0F, -100.0F),
                              std::nextafter(-88.0F, 0.0F),
                              std::numeric_limits<float>::max(),
                              std::numeric_limits<float>::lowest(),
                              -std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()};
  for (int step = -25000; step <= 25000; ++step) {
    gates.push_back(static_cast<float>(step) * 0.0038F);
  }
  const auto count = static_cast<int64_t>(gates.size());
  OddBuffer gate(4 * count);
  std::memcpy(gate.data(), gates.data(), gates.size() * 4);
  std::mt19937 random(2);
  expect_swiglu(gate, random_values(random, FloatType::f32, count), FloatType::f32, count);
}

TEST_P(SwigluTest, OddSizesAndInPlace) {
  std::mt19937 random(3);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t count : kOddSizes) {
      OddBuffer gate = random_values(random, type, count, 4);
      OddBuffer up = random_values(random, type, count, 4);
      expect_swiglu(gate, up, type, count);
      OddBuffer out(count * element_size(type));
      swiglu(gate.data(), up.data(), type, count, out.data());
      OddBuffer over_gate = gate;
      swiglu(over_gate.data(), up.data(), type, count, over_gate.data());
      EXPECT_EQ(over_gate, out) << count;
      swiglu(gate.data(), up.data(), type, count, up.data());
      EXPECT_EQ(up, out) << count;
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
