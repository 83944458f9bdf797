#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/rope_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using RopeTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, RopeTest, every_isa(), isa_test_name);

constexpr int64_t kTokens = 3;

/// cos and sin of the angles of kTokens x half pairs.
struct Angles {
  Angles(std::mt19937& random, int64_t half)
      : cos(random_floats(random, kTokens * half)), sin(cos.size()) {
    for (size_t i = 0; i < cos.size(); ++i) {
      const float angle = 10 * cos[i];
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
  }
  std::vector<float> cos;
  std::vector<float> sin;
};

void expect_rotated(std::mt19937& random, FloatType type, int64_t heads, int64_t half,
                    bool interleaved) {
  const int64_t dim = 2 * half;
  const HeadStrides in_strides = {.token = heads * (dim + 3) + 1, .head = dim + 3};
  const HeadStrides out_strides = {.token = dim, .head = kTokens * dim + 5};
  const Angles angles(random, half);
  const OddBuffer in = random_values(random, type, kTokens * in_strides.token);
  OddBuffer out(heads * out_strides.head * element_size(type));
  OddBuffer expected = out;
  rotate(in.data(), in_strides, type, kTokens, heads, dim, angles.cos.data(), angles.sin.data(),
         interleaved, out.data(), out_strides);
  rotate_reference(in.data(), in_strides, type, kTokens, heads, dim, angles.cos.data(),
                   angles.sin.data(), interleaved, expected.data(), out_strides);
  ASSERT_EQ(out, expected) << dim << (interleaved ? " interleaved" : " half split");
  for (int64_t i = 0; i < kTokens * heads * half; ++i) {
    const int64_t t = i / half % kTokens;
    const int64_t h = i / half / kTokens;
    const int64_t pair = i % half;
    const int64_t from = t * in_strides.token + h * in_strides.head;
    const int64_t to = t * out_strides.token + h * out_strides.head;
    const double a = load_as_double(in.data(), type, from + (interleaved ? 2 * pair : pair));
    const double b =
        load_as_double(in.data(), type, from + (interleaved ? 2 * pair + 1 : half + pair));
    const double c = angles.cos[t * half + pair];
    const double s = angles.sin[t * half + pair];
    const double slack = 0x1p-24 * (std::abs(a) + std::abs(b));
    ASSERT_NEAR(load_as_double(out.data(), type, to + pair), a * c - b * s,
                rounding_bound(a * c - b * s, type, 0x1p-23) + slack);
    ASSERT_NEAR(load_as_double(out.data(), type, to + half + pair), b * c + a * s,
                rounding_bound(b * c + a * s, type, 0x1p-23) + slack);
  }
}

TEST_P(RopeTest, OddSizesEqualTheReferenceAndTheClosedForm) {
  std::mt19937 random(1);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t half : kOddSizes) {
      for (const bool interleaved : {false, true}) {
        for (const int64_t heads : {1, 3}) {
          expect_rotated(random, type, heads, half, interleaved);
        }
      }
    }
  }
}

TEST_P(RopeTest, HalvesInPlace) {
  std::mt19937 random(2);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t half : kOddSizes) {
      const int64_t dim = 2 * half;
      const HeadStrides strides = {.token = dim, .head = 0};
      const Angles angles(random, half);
      OddBuffer buffer = random_values(random, type, kTokens * dim);
      OddBuffer out(kTokens * dim * element_size(type));
      rotate(buffer.data(), strides, type, kTokens, 1, dim, angles.cos.data(), angles.sin.data(),
             false, out.data(), strides);
      rotate(buffer.data(), strides, type, kTokens, 1, dim, angles.cos.data(), angles.sin.data(),
             false, buffer.data(), strides);
      EXPECT_EQ(buffer, out) << dim;
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
