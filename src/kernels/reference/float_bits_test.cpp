#include "kernels/reference/float_bits.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace blockptq::kernels {
namespace {

/// The value of a sign-exponent-mantissa code, from the definition; infinity and NaN left out.
double decode(uint32_t code, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int mantissa = static_cast<int>(code & ((1U << mantissa_bits) - 1));
  const int exponent = static_cast<int>((code >> mantissa_bits) & ((1U << exponent_bits) - 1));
  const bool negative = ((code >> (exponent_bits + mantissa_bits)) & 1U) != 0;
  const int integer = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  const double value = std::ldexp(integer, (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  return negative ? -value : value;
}

TEST(FloatBits, E4m3) {
  for (int code = 0; code < 256; ++code) {
    const float value = float_from_e4m3(static_cast<uint8_t>(code));
    const bool nan = code == 0x7f || code == 0xff;
    EXPECT_EQ(is_nan_e4m3(static_cast<uint8_t>(code)), nan);
    EXPECT_EQ(std::isnan(value), nan) << code;
    if (!nan) {
      EXPECT_EQ(value, decode(code, 4, 3)) << code;
    }
    EXPECT_EQ(std::signbit(value), code >= 128) << code;
  }
  EXPECT_EQ(float_from_e4m3(0x7e), 448);
}

void expect_same(float value, double expected, uint32_t code) {
  ASSERT_EQ(value, expected) << code;
  ASSERT_EQ(std::signbit(value), std::signbit(expected)) << code;
}

TEST(FloatBits, EveryBf16AndF16) {
  for (uint32_t code = 0; code < 65536; ++code) {
    const auto bits = static_cast<uint16_t>(code);
    const float bf16 = float_from_bf16(bits);
    if ((code & 0x7f80U) != 0x7f80U) {
      expect_same(bf16, decode(code, 8, 7), code);
    } else {
      ASSERT_EQ(std::isnan(bf16), (code & 0x7fU) != 0) << code;
    }
    const float f16 = float_from_f16(bits);
    if ((code & 0x7c00U) != 0x7c00U) {
      expect_same(f16, decode(code, 5, 10), code);
    } else {
      ASSERT_EQ(std::isnan(f16), (code & 0x3ffU) != 0) << code;
    }
    // There and back; a signalling NaN becomes quiet.
    ASSERT_EQ(bf16_from_float(bf16), std::isnan(bf16) ? (code | 0x40U) : code);
    ASSERT_EQ(f16_from_float(f16), std::isnan(f16) ? (code | 0x200U) : code);
  }
}

/// Rounding by the definition: the nearest code, of two equally near the even one. Codes of one
/// sign are in the order of their values, `infinity` the one after the largest.
uint16_t nearest(double magnitude, uint16_t infinity, int exponent_bits, int mantissa_bits) {
  uint32_t low = 0;
  uint32_t high = infinity;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (decode(middle, exponent_bits, mantissa_bits) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - decode(low, exponent_bits, mantissa_bits);
  const double above = decode(high, exponent_bits, mantissa_bits) - magnitude;
  const bool up = above < below || (above == below && low % 2 == 1);
  return static_cast<uint16_t>(up ? high : low);
}

std::vector<float> hard_magnitudes() {
  std::vector<float> values = {
      0,     std::numeric_limits<float>::denorm_min(), 65504, 65519.996F, 65520,
      65536, std::numeric_limits<float>::max()};
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    const auto exponent = static_cast<uint32_t>(random() % 255) << 23;
    const auto any = static_cast<uint32_t>(random()) & 0x7fffffU;
    // Random, ties of bf16 and f16, and the neighbours of ties.
    for (const uint32_t mantissa : {any, (any & ~0xffffU) | 0x8000U, (any & ~0x1fffU) | 0x1000U,
                                    (any & ~0xffffU) | 0x8001U, (any & ~0x1fffU) | 0xfffU}) {
      values.push_back(std::bit_cast<float>(exponent | mantissa));
    }
    values.push_back(std::ldexp(static_cast<float>(random() % 4096), -26));  // subnormal in f16
  }
  return values;
}

TEST(FloatBits, RoundsHalfToEven) {
  for (const float value : hard_magnitudes()) {
    ASSERT_EQ(bf16_from_float(value), nearest(value, 0x7f80, 8, 7)) << value;
    ASSERT_EQ(bf16_from_float(-value), nearest(value, 0x7f80, 8, 7) | 0x8000) << value;
    ASSERT_EQ(f16_from_float(value), nearest(value, 0x7c00, 5, 10)) << value;
    ASSERT_EQ(f16_from_float(-value), nearest(value, 0x7c00, 5, 10) | 0x8000) << value;
  }
}

TEST(FloatBits, InfinityAndNan) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(bf16_from_float(infinity), 0x7f80);
  EXPECT_EQ(bf16_from_float(-infinity), 0xff80);
  EXPECT_EQ(f16_from_float(infinity), 0x7c00);
  EXPECT_EQ(f16_from_float(-infinity), 0xfc00);
  for (const uint32_t bits : {0x7f800001U, 0x7fffffffU, 0xff800001U, 0xffffffffU, 0x7fc00000U}) {
    const auto nan = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(nan)))) << bits;
    EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(nan)))) << bits;
  }
}

}  // namespace
}  // namespace blockptq::kernels
