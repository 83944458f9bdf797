#include "kernels/quantize_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/quantize_rows_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using QuantizeRowsTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, QuantizeRowsTest, every_isa(), isa_test_name);

constexpr int64_t kRows = 3;

void expect_as_reference(const void* in, FloatType type, const RowGroups& shape, int bits,
                         const float* scales, const RowBounds& bounds) {
  const int64_t count = shape.rows * shape.cols;
  std::vector<int8_t> codes(static_cast<size_t>(count));
  std::vector<int8_t> expected_codes(codes.size());
  quantize_rows(in, type, shape, bits, scales, codes.data());
  quantize_rows_reference(in, type, shape, bits, scales, expected_codes.data());
  ASSERT_EQ(codes, expected_codes) << shape.cols << " columns in groups of " << shape.group;
  for (const FloatType out_type : kFloatTypes) {
    OddBuffer out(count * element_size(out_type));
    OddBuffer expected(count * element_size(out_type));
    fake_quantize_rows(in, type, shape, bits, scales, bounds, out_type, out.data());
    fake_quantize_rows_reference(in, type, shape, bits, scales, bounds, out_type, expected.data());
    ASSERT_EQ(out, expected) << shape.cols << " columns in groups of " << shape.group << ", types "
                             << static_cast<int>(type) << " and " << static_cast<int>(out_type);
  }
}

TEST_P(QuantizeRowsTest, OddSizesInGroups) {
  std::mt19937 random(1);
  const std::vector<float> low = {-0.5F, -1, -2};
  const std::vector<float> high = {1.5F, 0.1F, -3};  // the last one crosses its partner
  for (const FloatType type : kFloatTypes) {
    for (const int64_t cols : kOddSizes) {
      const OddBuffer in = random_values(random, type, kRows * cols);
      for (const int bits : {2, 4, 8}) {
        for (const int64_t group : {int64_t{1}, int64_t{33}, cols}) {
          const RowGroups shape = {kRows, cols, group};
          const std::vector<float> scales =
              random_scales(random, kRows * ((cols + group - 1) / group), bits);
          expect_as_reference(in.data(), type, shape, bits, scales.data(), {});
          expect_as_reference(in.data(), type, shape, bits, scales.data(),
                              {low.data(), high.data()});
        }
      }
    }
  }
}

TEST_P(QuantizeRowsTest, HugeTinyAndNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> row = {0,     -0.0F,     1e-45F, -1e-40F, 3e38F, -3e38F, nan, infinity,
                                  1e-3F, -infinity, 1,      2.5F,    -2.5F, 127.5F, 8,   -8.5F};
  std::vector<float> in;
  for (int i = 0; i < 3; ++i) {
    in.insert(in.end(), row.begin(), row.end());
  }
  const auto cols = static_cast<int64_t>(row.size());
  for (const float scale : {1e-45F, 1e-38F, 0.3F, 1.0F, 1e38F, infinity}) {
    const std::vector<float> scales(3, scale);
    expect_as_reference(in.data(), FloatType::f32, {3, cols, cols}, 8, scales.data(), {});
  }
}

TEST_P(QuantizeRowsTest, InPlace) {
  std::mt19937 random(2);
  const std::vector<float> scales(2, 0.02F);
  for (const FloatType type : kFloatTypes) {
    OddBuffer buffer = random_values(random, type, 2 * 77);
    OddBuffer out(2 * 77 * element_size(type));
    fake_quantize_rows(buffer.data(), type, {2, 77, 77}, 8, scales.data(), {}, type, out.data());
    fake_quantize_rows(buffer.data(), type, {2, 77, 77}, 8, scales.data(), {}, type, buffer.data());
    EXPECT_EQ(buffer, out);
  }
}

TEST(QuantizeRowsReference, RoundsHalfToEvenAndClamps) {
  const std::vector<float> in = {0.5F, 1.5F, -2.5F, 100, -100, 3.7F};
  const float scale = 1;
  std::vector<int8_t> codes(6);
  quantize_rows_reference(in.data(), FloatType::f32, {1, 6, 6}, 4, &scale, codes.data());
  EXPECT_EQ(codes, (std::vector<int8_t>{0, 2, -2, 7, -8, 4}));
  const float half = 0.5F;
  const float low = -1.2F;
  const float high = 2.2F;
  std::vector<float> out(6);
  fake_quantize_rows_reference(in.data(), FloatType::f32, {1, 6, 6}, 8, &half, {&low, &high},
                               FloatType::f32, out.data());
  EXPECT_EQ(out, (std::vector<float>{0.5F, 1.5F, -1, 2, -1, 2}));
}

}  // namespace
}  // namespace blockptq::kernels
