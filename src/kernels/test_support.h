// What the tests of kernels share.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/reference/float_bits.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Sizes around the widths of vectors.
constexpr std::array<int64_t, 24> kOddSizes = {1,  2,   3,   7,   8,   9,   15,  16,
                                               17, 31,  32,  33,  47,  48,  63,  64,
                                               65, 127, 128, 129, 191, 255, 256, 257};
constexpr std::array<FloatType, 3> kFloatTypes = {FloatType::f32, FloatType::bf16, FloatType::f16};

/// Runs each test at every level of the instruction set that this CPU has.
class IsaTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > best_isa()) {
      GTEST_SKIP() << "this CPU lacks " << isa_name(GetParam());
    }
    before_ = active_isa();
    set_isa(GetParam());
  }
  void TearDown() override { set_isa(before_); }

 private:
  Isa before_ = best_isa();
};

inline auto every_isa() {
  return testing::Values(Isa::scalar, Isa::avx2, Isa::avx512);
}
inline std::string isa_test_name(const testing::TestParamInfo<Isa>& info) {
  return std::string(isa_name(info.param));
}

/// A heap buffer of exactly `size` bytes at an odd address, so that a sanitizer sees every byte too
/// far and UBSan every typed access.
class OddBuffer {
 public:
  explicit OddBuffer(int64_t size) : bytes_(static_cast<size_t>(size) + 1) {}
  uint8_t* data() { return bytes_.data() + 1; }
  const uint8_t* data() const { return bytes_.data() + 1; }
  friend bool operator==(const OddBuffer&, const OddBuffer&) = default;

 private:
  std::vector<uint8_t> bytes_;
};

inline void fill_random_bytes(std::mt19937& random, uint8_t* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<uint8_t>(random() & 0xffU);
  }
}

inline double load_as_double(const void* buffer, FloatType type, int64_t index) {
  return visit_float_type(type, [&](auto constant) {
    return static_cast<double>(load_element<decltype(constant)::value>(buffer, index));
  });
}

/// `count` normally distributed values of `type`.
inline OddBuffer random_values(std::mt19937& random, FloatType type, int64_t count,
                               float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  OddBuffer values(count * element_size(type));
  visit_float_type(type, [&](auto constant) {
    for (int64_t i = 0; i < count; ++i) {
      store_element<decltype(constant)::value>(normal(random), values.data(), i);
    }
  });
  return values;
}

/// `count` normally distributed floats.
inline std::vector<float> random_floats(std::mt19937& random, int64_t count, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = normal(random);
  }
  return values;
}

/// Scales under which normal deviates fill the grid of `bits`, and some leave it.
inline std::vector<float> random_scales(std::mt19937& random, int64_t count, int bits) {
  std::uniform_real_distribution<float> exponent(-1, 1);
  std::vector<float> scales(static_cast<size_t>(count));
  for (float& scale : scales) {
    scale = std::exp2(exponent(random)) / static_cast<float>(1 << (bits - 1));
  }
  return scales;
}

/// How far `exact` may be from its rounding to `type` when it came with a relative error of
/// `relative`.
inline double rounding_bound(double exact, FloatType type, double relative) {
  const double half_ulp = type == FloatType::f32    ? 0x1p-24
                          : type == FloatType::bf16 ? 0x1p-8
                                                    : 0x1p-11;
  const double smallest = type == FloatType::f16 ? 0x1p-24 : 0x1p-126;
  return std::max(std::abs(exact) * (half_ulp + relative), smallest * (0.5 + relative));
}

}  // namespace blockptq::kernels
