#include "kernels/int_linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/reference/int_linear_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using IntLinearTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, IntLinearTest, every_isa(), isa_test_name);

struct Size {
  int64_t tokens;
  int64_t inputs;
  int64_t outputs;
};

/// Random activations and weights at odd addresses.
class Problem {
 public:
  Problem(std::mt19937& random, const Size& size, int bits)
      : size_(size),
        bits_(bits),
        row_bytes_(bits == 4 ? (size.inputs + 1) / 2 : size.inputs),
        x_(size.tokens * size.inputs),
        w_(size.outputs * row_bytes_),
        token_scales_(random_floats(random, size.tokens)),
        output_scales_(random_floats(random, size.outputs)) {
    fill_random_bytes(random, x_.data(), size.tokens * size.inputs);
    fill_random_bytes(random, w_.data(), size.outputs * row_bytes_);
  }

  IntTokens x() const {
    return {reinterpret_cast<const int8_t*>(x_.data()), token_scales_.data(), size_.tokens};
  }
  IntWeights w() const {
    return {bits_, w_.data(), output_scales_.data(), size_.outputs, size_.inputs};
  }
  void fill_codes(int8_t x, uint8_t w) {
    std::memset(x_.data(), x, static_cast<size_t>(size_.tokens * size_.inputs));
    std::memset(w_.data(), w, static_cast<size_t>(size_.outputs * row_bytes_));
  }

  using Kernel = void (*)(const IntTokens&, const IntWeights&, int64_t, int64_t, FloatType, void*,
                          void*);
  OddBuffer run(Kernel kernel, FloatType type, int64_t begin, int64_t end) const {
    OddBuffer out(size_.tokens * size_.outputs * element_size(type));
    std::vector<uint8_t> scratch(
        static_cast<size_t>(int_linear_scratch(size_.tokens, size_.inputs)));
    kernel(x(), w(), begin, end, type, out.data(), scratch.data());
    return out;
  }
  void expect_as_reference(FloatType type) const {
    const int64_t begin = size_.outputs / 3;  // outputs before are not touched
    for (const int64_t first : {int64_t{0}, begin}) {
      EXPECT_EQ(run(int_linear, type, first, size_.outputs),
                run(int_linear_reference, type, first, size_.outputs))
          << size_.tokens << " tokens, " << size_.inputs << " inputs, " << size_.outputs
          << " outputs from " << first << ", " << bits_ << " bits";
    }
  }

 private:
  Size size_;
  int bits_;
  int64_t row_bytes_;
  OddBuffer x_;
  OddBuffer w_;
  std::vector<float> token_scales_;
  std::vector<float> output_scales_;
};

TEST_P(IntLinearTest, OddSizes) {
  std::mt19937 random(1);
  for (const int bits : {4, 8}) {
    for (const int64_t inputs : kOddSizes) {
      Problem(random, {13, inputs, 70}, bits).expect_as_reference(FloatType::f32);
    }
    for (const int64_t outputs : kOddSizes) {
      Problem(random, {5, 67, outputs}, bits).expect_as_reference(FloatType::bf16);
    }
    for (int64_t tokens = 1; tokens < 30; ++tokens) {
      Problem(random, {tokens, 130, 33}, bits).expect_as_reference(FloatType::f16);
    }
  }
}

TEST_P(IntLinearTest, NoTokens) {
  std::mt19937 random(2);
  Problem(random, {0, 64, 64}, 8).expect_as_reference(FloatType::f32);
}

TEST_P(IntLinearTest, EveryPairOfExtremes) {
  std::mt19937 random(3);
  constexpr int64_t kInputs = 4095;
  for (const int x : {-128, -127, -1, 0, 1, 127}) {
    for (const int w : {-128, -127, -1, 0, 1, 127}) {
      Problem problem(random, {3, kInputs, 17}, 8);
      problem.fill_codes(static_cast<int8_t>(x), static_cast<uint8_t>(w));
      const OddBuffer out = problem.run(int_linear, FloatType::f32, 0, 17);
      const double scale = double{problem.x().scales[2]} * double{problem.w().scales[16]};
      const auto expected = static_cast<float>(static_cast<double>(kInputs * x * w) * scale);
      EXPECT_EQ(load_element<FloatType::f32>(out.data(), 3 * 17 - 1), expected) << x << " " << w;
    }
  }
}

/// Sums beyond the range in which fp32 is exact, up to the largest that int32 holds.
TEST_P(IntLinearTest, LongRowsAreExact) {
  std::mt19937 random(4);
  constexpr int64_t kInputs = (1 << 17) - 1;
  Problem problem(random, {2, kInputs, 3}, 8);
  problem.fill_codes(-128, 0x80);
  problem.expect_as_reference(FloatType::f32);
  const OddBuffer out = problem.run(int_linear, FloatType::f32, 0, 3);
  const double scale = double{problem.x().scales[0]} * double{problem.w().scales[0]};
  EXPECT_EQ(load_element<FloatType::f32>(out.data(), 0),
            static_cast<float>(static_cast<double>(kInputs * 128 * 128) * scale));
}

TEST(PackInt4, EveryCodeEarlierOneLower) {
  std::vector<int8_t> codes;
  for (int code = -8; code < 8; ++code) {
    codes.push_back(static_cast<int8_t>(code));
  }
  codes.push_back(3);
  std::vector<uint8_t> packed(9, 0xff);
  pack_int4(codes.data(), 17, packed.data());
  EXPECT_EQ(packed, (std::vector<uint8_t>{0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0x0b}));
}

}  // namespace
}  // namespace blockptq::kernels
