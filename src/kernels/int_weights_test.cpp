#include "kernels/int_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/int_weights_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using IntWeightsTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, IntWeightsTest, every_isa(), isa_test_name);

struct Layout {
  int word_bits;
  int bits;
};
constexpr std::array<Layout, 3> kLayouts = {Layout{8, 8}, Layout{32, 8}, Layout{32, 4}};

/// Random codes, scales and zero points, owned.
struct Case {
  OddBuffer codes;
  std::vector<float> scales;
  std::vector<int8_t> zero_points;
  IntMatrix matrix;

  Case(Layout layout, int64_t rows, int64_t cols, int64_t group_size, bool with_zero_points)
      : codes(rows * row_bytes(layout, cols)) {
    std::mt19937 random(static_cast<uint32_t>(rows * 131 + cols * 7 + group_size));
    fill_random_bytes(random, codes.data(), rows * row_bytes(layout, cols));
    const int64_t groups = rows * ((cols + group_size - 1) / group_size);
    std::uniform_real_distribution<float> exponent(-20, 10);
    for (int64_t i = 0; i < groups; ++i) {
      scales.push_back(std::exp2(exponent(random)));
      const auto any = static_cast<int8_t>(random() & 0xffU);
      zero_points.push_back(layout.bits == 8 ? any : static_cast<int8_t>(any >> 4));
    }
    matrix = {.word_bits = layout.word_bits,
              .bits = layout.bits,
              .codes = codes.data(),
              .scales = scales.data(),
              .zero_points = with_zero_points ? zero_points.data() : nullptr,
              .rows = rows,
              .cols = cols,
              .group_size = group_size};
  }

  static int64_t row_bytes(Layout layout, int64_t cols) {
    return layout.word_bits == 8 ? cols : (cols * layout.bits + 31) / 32 * 4;
  }
};

void expect_as_reference(const IntMatrix& matrix, int64_t row_begin, int64_t row_end) {
  for (const FloatType type : kFloatTypes) {
    const int64_t size = (row_end - row_begin) * matrix.cols * element_size(type);
    OddBuffer out(size);
    OddBuffer expected(size);
    decode_int(matrix, row_begin, row_end, type, out.data());
    decode_int_reference(matrix, row_begin, row_end, type, expected.data());
    ASSERT_EQ(out, expected) << matrix.word_bits << "/" << matrix.bits << " bits, " << matrix.rows
                             << "x" << matrix.cols << " in groups of " << matrix.group_size
                             << ", type " << static_cast<int>(type);
  }
}

TEST_P(IntWeightsTest, OddSizesPerChannel) {
  for (const Layout layout : kLayouts) {
    for (const int64_t cols : kOddSizes) {
      for (const bool with_zero_points : {false, true}) {
        expect_as_reference(Case(layout, 5, cols, cols, with_zero_points).matrix, 0, 5);
      }
    }
  }
}

TEST_P(IntWeightsTest, Groups) {
  for (const Layout layout : kLayouts) {
    for (const int64_t group_size : {1, 2, 3, 8, 31, 32, 33, 64, 100, 128}) {
      for (const int64_t cols : {32, 33, 96, 255, 256, 2047, 2049, 4099}) {
        expect_as_reference(Case(layout, 3, cols, group_size, true).matrix, 0, 3);
      }
    }
  }
}

TEST_P(IntWeightsTest, SomeRows) {
  for (const Layout layout : kLayouts) {
    const Case test(layout, 9, 70, 32, true);
    expect_as_reference(test.matrix, 0, 1);
    expect_as_reference(test.matrix, 3, 9);
    expect_as_reference(test.matrix, 4, 4);
  }
}

TEST(IntWeightsReference, PackedWords) {
  // Codes -8..7 in two words, lowest first; a third word for the seventeenth, 3.
  const std::vector<uint32_t> words = {0x76543210U, 0xfedcba98U, 0xfffffffbU};
  const std::vector<float> scales = {0.5F, 2.0F};
  const std::vector<int8_t> zero_points = {1, -2};
  const IntMatrix matrix = {.word_bits = 32,
                            .bits = 4,
                            .codes = words.data(),
                            .scales = scales.data(),
                            .zero_points = zero_points.data(),
                            .rows = 1,
                            .cols = 17,
                            .group_size = 16};
  std::vector<float> out(17);
  decode_int_reference(matrix, 0, 1, FloatType::f32, out.data());
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[static_cast<size_t>(i)], static_cast<float>(i - 8 - 1) * 0.5F);
  }
  EXPECT_EQ(out[16], (3 + 2) * 2.0F);
}

TEST(IntWeightsReference, Int8AndPackedBytes) {
  const std::vector<uint8_t> codes = {0x00, 0x01, 0x7f, 0x80, 0xff};
  const std::vector<uint8_t> packed = {0x80, 0x81, 0xff, 0x00, 0x7f, 0x55, 0x55, 0x55};
  const std::vector<float> expected = {0, 0.25F, 127 * 0.25F, -128 * 0.25F, -0.25F};
  const float scale = 0.25F;
  std::vector<float> out(5);
  IntMatrix matrix = {.word_bits = 8,
                      .bits = 8,
                      .codes = codes.data(),
                      .scales = &scale,
                      .rows = 1,
                      .cols = 5,
                      .group_size = 5};
  decode_int_reference(matrix, 0, 1, FloatType::f32, out.data());
  EXPECT_EQ(out, expected);
  matrix.word_bits = 32;
  matrix.codes = packed.data();
  decode_int_reference(matrix, 0, 1, FloatType::f32, out.data());
  EXPECT_EQ(out, expected);
}

}  // namespace
}  // namespace blockptq::kernels
