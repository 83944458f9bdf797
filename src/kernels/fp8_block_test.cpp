#include "kernels/fp8_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/fp8_block_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using Fp8BlockTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, Fp8BlockTest, every_isa(), isa_test_name);

/// Random codes without NaN and scales over a wide range, owned.
struct Case {
  OddBuffer codes;
  std::vector<float> scales;
  Fp8BlockMatrix matrix;

  Case(int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols) : codes(rows * cols) {
    std::mt19937 random(static_cast<uint32_t>(rows * 131 + cols));
    fill_random_bytes(random, codes.data(), rows * cols);
    for (int64_t i = 0; i < rows * cols; ++i) {
      codes.data()[i] = is_nan_e4m3(codes.data()[i]) ? 0x80 : codes.data()[i];
    }
    const int64_t blocks =
        ((rows + block_rows - 1) / block_rows) * ((cols + block_cols - 1) / block_cols);
    std::uniform_real_distribution<float> exponent(-30, 10);
    for (int64_t i = 0; i < blocks; ++i) {
      scales.push_back(std::exp2(exponent(random)));
    }
    matrix = {codes.data(), scales.data(), rows, cols, block_rows, block_cols};
  }
};

void expect_as_reference(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end) {
  for (const FloatType type : kFloatTypes) {
    const int64_t size = (row_end - row_begin) * matrix.cols * element_size(type);
    OddBuffer out(size);
    OddBuffer expected(size);
    ASSERT_TRUE(decode_fp8_block(matrix, row_begin, row_end, type, out.data()));
    ASSERT_TRUE(decode_fp8_block_reference(matrix, row_begin, row_end, type, expected.data()));
    ASSERT_EQ(out, expected) << matrix.rows << "x" << matrix.cols << " in blocks of "
                             << matrix.block_rows << "x" << matrix.block_cols << ", rows "
                             << row_begin << " to " << row_end << ", type "
                             << static_cast<int>(type);
  }
}

TEST_P(Fp8BlockTest, OddSizes) {
  for (const int64_t rows : {1, 3, 17, 129}) {
    for (const int64_t cols : kOddSizes) {
      expect_as_reference(Case(rows, cols, 128, 128).matrix, 0, rows);
    }
  }
}

TEST_P(Fp8BlockTest, OtherBlocks) {
  for (const int64_t block_rows : {1, 3, 64}) {
    for (const int64_t block_cols : {1, 2, 7, 16, 33, 100, 1000}) {
      expect_as_reference(Case(65, 259, block_rows, block_cols).matrix, 0, 65);
    }
  }
}

TEST_P(Fp8BlockTest, ManyBlocksInARow) {
  expect_as_reference(Case(40, 9001, 32, 128).matrix, 0, 40);
  expect_as_reference(Case(20, 2112, 128, 64).matrix, 0, 20);
}

TEST_P(Fp8BlockTest, SomeRows) {
  const Case test(300, 200, 128, 128);
  expect_as_reference(test.matrix, 0, 1);
  expect_as_reference(test.matrix, 127, 129);
  expect_as_reference(test.matrix, 130, 300);
  expect_as_reference(test.matrix, 5, 5);
}

TEST_P(Fp8BlockTest, EveryCodeWithHardScales) {
  std::vector<uint8_t> codes;
  for (int i = 0; i < 32 * 256; ++i) {
    const auto code = static_cast<uint8_t>(i % 256);
    codes.push_back(is_nan_e4m3(code) ? 0 : code);
  }
  // Ordinary, subnormal products, overflow of f16, overflow of f32.
  for (const float scale : {1.0F, 0.00123456F, -3.0F, 1e-43F, 1.1e-38F, 3e-7F, 200.0F, 1.3e38F,
                            0x1p127F, -0x1p127F, 0.0F}) {
    for (const int64_t rows : {1, 32}) {  // few and many rows of a block
      expect_as_reference({codes.data(), &scale, rows, 256, rows, 256}, 0, rows);
    }
  }
}

TEST_P(Fp8BlockTest, FindsNanCodes) {
  constexpr int64_t kRows = 17;
  for (const int64_t cols : {1, 8, 31, 64, 129}) {
    Case test(kRows, cols, 128, 128);
    std::vector<float> out(static_cast<size_t>(kRows * cols));
    for (int64_t at = 0; at < kRows * cols; ++at) {
      uint8_t& code = test.codes.data()[at];
      const uint8_t before = code;
      code = at % 2 == 0 ? 0x7f : 0xff;
      const int64_t row = at / cols;
      for (const FloatType type : kFloatTypes) {
        ASSERT_FALSE(decode_fp8_block(test.matrix, 0, kRows, type, out.data()))
            << cols << " " << at;
        ASSERT_FALSE(decode_fp8_block(test.matrix, row, row + 1, type, out.data()));
        ASSERT_EQ(decode_fp8_block(test.matrix, 0, 1, type, out.data()), row > 0);
      }
      code = before;
    }
  }
}

TEST(Fp8BlockReference, ProductOfCodeAndScaleOfItsBlock) {
  const Case test(130, 257, 128, 128);
  std::vector<float> out(size_t{130} * 257);
  ASSERT_TRUE(decode_fp8_block_reference(test.matrix, 0, 130, FloatType::f32, out.data()));
  for (int64_t row = 0; row < 130; ++row) {
    for (int64_t col = 0; col < 257; ++col) {
      const float scale = test.scales[static_cast<size_t>((row / 128) * 3 + col / 128)];
      const float code = float_from_e4m3(test.codes.data()[row * 257 + col]);
      ASSERT_EQ(out[static_cast<size_t>(row * 257 + col)], code * scale);
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
