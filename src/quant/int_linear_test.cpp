#include "quant/int_linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "quant/composed.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

QTensor random_weight(int64_t outputs, int64_t inputs, int bits) {
  const at::Tensor w_OI = at::randn({outputs, inputs});
  return quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
}

class IntLinear : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Bits, IntLinear, testing::Values(3, 4, 8));

TEST_P(IntLinear, IsTheProductOfTheValues) {
  at::manual_seed(1);
  const QActivation x = quantize_activation(at::randn({37, 301}), 8);
  const QTensor w = random_weight(150, 301, GetParam());
  const at::Tensor y = int_linear(x, pack(w), at::kFloat);
  const at::Tensor sums = at::mm(x.codes.to(at::kDouble), w.codes_OI.to(at::kDouble).t());
  const at::Tensor scales =
      x.scales.to(at::kDouble).view({-1, 1}) * w.scales_O.to(at::kDouble).view({1, -1});
  EXPECT_TRUE(at::equal(y, (sums * scales).to(at::kFloat)));
}

TEST_P(IntLinear, ProductsOfValuesRoundToTheSame) {
  at::manual_seed(4);
  // More inputs than the values of a few tokens and outputs take at a time.
  for (const int64_t inputs : {301, 70'000}) {
    const QActivation x = quantize_activation(at::randn({70, inputs}), 8);
    const IntWeight w = pack(random_weight(65, inputs, GetParam()));
    // Where the sum is zero the values may leave a residue.
    EXPECT_TRUE(at::allclose(value_linear(x, w, at::kFloat), int_linear(x, w, at::kFloat),
                             /*rtol=*/0, /*atol=*/1e-12));
  }
}

TEST_P(IntLinear, ComposedOperationsAgreeToTheBit) {
  at::manual_seed(2);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const QActivation x = quantize_activation(at::randn({5, 64}).to(type), 8);
    const IntWeight w = pack(random_weight(65, 64, GetParam()));
    EXPECT_TRUE(at::equal(int_linear(x, w, type), composed::int_linear(x, w, type)));
  }
}

TEST_P(IntLinear, RowsAreColumnsOfTheProduct) {
  at::manual_seed(3);
  const QActivation x = quantize_activation(at::randn({9, 77}), 8);
  const IntWeight w = pack(random_weight(100, 77, GetParam()));
  const at::Tensor y = int_linear(x, w, at::kFloat);
  EXPECT_TRUE(at::equal(int_linear(x, w.rows(13, 90), at::kFloat), y.slice(1, 13, 90)));
}

TEST(IntLinearMemory, FourBitCodesTakeHalfAByte) {
  const IntWeight w = pack(random_weight(10, 33, 4));
  EXPECT_EQ(w.codes.nbytes(), 10U * 17U);
  EXPECT_EQ(IntWeight::row_bytes(8, 33), 33);
}

}  // namespace
}  // namespace blockptq
