#include "kernels/scatter_add.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/reference/scatter_add_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using ScatterAddTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, ScatterAddTest, every_isa(), isa_test_name);

TEST_P(ScatterAddTest, OddSizesEqualTheReferenceAndTheClosedForm) {
  std::mt19937 random(1);
  const std::vector<int64_t> rows = {5, 0, 3};
  const std::vector<float> weights = {0.7F, -1.3F, 0};
  for (const FloatType type : kFloatTypes) {
    for (const int64_t dim : kOddSizes) {
      const OddBuffer in = random_values(random, type, 3 * dim);
      const OddBuffer before = random_values(random, type, 6 * dim);
      OddBuffer out = before;
      OddBuffer expected = before;
      scatter_add_rows(in.data(), type, weights.data(), rows.data(), 3, dim, out.data());
      scatter_add_rows_reference(in.data(), type, weights.data(), rows.data(), 3, dim,
                                 expected.data());
      EXPECT_EQ(out, expected) << dim;  // the rows between the chosen ones included
      for (size_t i = 0; i < rows.size(); ++i) {
        for (int64_t d = 0; d < dim; ++d) {
          const int64_t at = rows[i] * dim + d;
          const double x = load_as_double(in.data(), type, static_cast<int64_t>(i) * dim + d);
          const double exact = load_as_double(before.data(), type, at) + weights[i] * x;
          ASSERT_NEAR(load_as_double(out.data(), type, at), exact,
                      rounding_bound(exact, type, 0x1p-24));
        }
      }
    }
  }
}

TEST_P(ScatterAddTest, NoRows) {
  OddBuffer out(8);
  const OddBuffer before = out;
  scatter_add_rows(nullptr, FloatType::bf16, nullptr, nullptr, 0, 4, out.data());
  EXPECT_EQ(out, before);
}

}  // namespace
}  // namespace blockptq::kernels
