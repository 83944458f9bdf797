#include "kernels/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/rms_norm_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using RmsNormTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, RmsNormTest, every_isa(), isa_test_name);

constexpr double kEps = 1e-6;
constexpr double kRelative = 4e-7;  // of the fp32 arithmetic before the rounding

/// `out` against the closed form in double of the rows `in`, dense and in order.
void expect_normalized(const OddBuffer& out, const OddBuffer& in, FloatType type, int64_t row,
                       int64_t in_begin, int64_t dim, const std::vector<float>& weight) {
  double squares = 0;
  for (int64_t d = 0; d < dim; ++d) {
    squares += std::pow(load_as_double(in.data(), type, in_begin + d), 2);
  }
  const double root = std::sqrt(squares / static_cast<double>(dim) + kEps);
  for (int64_t d = 0; d < dim; ++d) {
    const double exact = load_as_double(in.data(), type, in_begin + d) / root * weight[d];
    ASSERT_NEAR(load_as_double(out.data(), type, row * dim + d), exact,
                rounding_bound(exact, type, kRelative))
        << "row " << row << " of " << dim;
  }
}

TEST_P(RmsNormTest, OddSizesGatheredFromAWiderMatrix) {
  std::mt19937 random(1);
  const std::vector<int64_t> rows = {3, 0, 3, 4, 1, 2, 0, 4, 4, 1, 3};
  const auto count = static_cast<int64_t>(rows.size());
  std::vector<int64_t> dims(kOddSizes.begin(), kOddSizes.end());
  dims.push_back(7168);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t dim : dims) {
      const int64_t stride = dim + 3;
      const OddBuffer in = random_values(random, type, 4 * stride + dim, 3);
      const std::vector<float> weight = random_floats(random, dim);
      OddBuffer out(count * dim * element_size(type));
      OddBuffer expected(count * dim * element_size(type));
      rms_norm(in.data(), type, stride, rows.data(), count, dim, weight.data(), kEps, out.data());
      rms_norm_reference(in.data(), type, stride, rows.data(), count, dim, weight.data(), kEps,
                         expected.data());
      for (int64_t i = 0; i < count; ++i) {
        expect_normalized(out, in, type, i, rows[i] * stride, dim, weight);
        for (int64_t d = i * dim; d < (i + 1) * dim; ++d) {
          const double reference = load_as_double(expected.data(), type, d);
          ASSERT_NEAR(load_as_double(out.data(), type, d), reference,
                      2 * rounding_bound(reference, type, kRelative));
        }
      }
    }
  }
}

TEST_P(RmsNormTest, InPlace) {
  std::mt19937 random(2);
  for (const FloatType type : kFloatTypes) {
    for (const int64_t dim : kOddSizes) {
      OddBuffer buffer = random_values(random, type, 2 * dim);
      const std::vector<float> weight = random_floats(random, dim);
      OddBuffer out(2 * dim * element_size(type));
      rms_norm(buffer.data(), type, dim, nullptr, 2, dim, weight.data(), kEps, out.data());
      rms_norm(buffer.data(), type, dim, nullptr, 2, dim, weight.data(), kEps, buffer.data());
      EXPECT_EQ(buffer, out) << dim;
    }
  }
}

TEST_P(RmsNormTest, RowsOfZeroStayZero) {
  constexpr int64_t kDim = 33;
  const OddBuffer in(4 * kDim);
  OddBuffer out(4 * kDim);
  out.data()[5] = 1;
  const std::vector<float> weight(kDim, 2);
  rms_norm(in.data(), FloatType::f32, kDim, nullptr, 1, kDim, weight.data(), kEps, out.data());
  EXPECT_EQ(out, in);
}

}  // namespace
}  // namespace blockptq::kernels
