#include "kernels/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/reference/hadamard_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using HadamardTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, HadamardTest, every_isa(), isa_test_name);

TEST_P(HadamardTest, EveryOrder) {
  std::mt19937 random(1);
  for (const FloatType type : kFloatTypes) {
    for (int64_t order = 1; order <= 1024; order *= 2) {
      OddBuffer buffer = random_values(random, type, 3 * order);
      OddBuffer expected(3 * order * element_size(type));
      std::vector<float> scratch(static_cast<size_t>(2 * order));
      hadamard_rows_reference(buffer.data(), type, 3, order, expected.data(), scratch.data());
      OddBuffer out(3 * order * element_size(type));
      hadamard_rows(buffer.data(), type, 3, order, out.data(), scratch.data());
      ASSERT_EQ(out, expected) << order;
      hadamard_rows(buffer.data(), type, 3, order, buffer.data(), scratch.data());
      ASSERT_EQ(buffer, expected) << order << ", in place";
    }
  }
}

TEST(HadamardReference, EqualsTheMatrix) {
  constexpr uint32_t kOrder = 32;
  std::mt19937 random(2);
  const std::vector<float> in = random_floats(random, kOrder);
  std::vector<float> out(kOrder);
  std::vector<float> scratch(2 * kOrder);
  hadamard_rows_reference(in.data(), FloatType::f32, 1, kOrder, out.data(), scratch.data());
  for (uint32_t i = 0; i < kOrder; ++i) {
    double sum = 0;
    for (uint32_t j = 0; j < kOrder; ++j) {
      sum += (std::popcount(i & j) % 2 == 0 ? 1.0 : -1.0) * in[j];  // Sylvester's matrix
    }
    EXPECT_NEAR(out[i], sum / std::sqrt(kOrder), 1e-6);
  }
}

}  // namespace
}  // namespace blockptq::kernels
