#include "kernels/convert.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/reference/convert_reference.h"
#include "kernels/test_support.h"

namespace blockptq::kernels {
namespace {

using ConvertTest = IsaTest;
INSTANTIATE_TEST_SUITE_P(Isa, ConvertTest, every_isa(), isa_test_name);

void expect_as_reference(const uint8_t* in, FloatType in_type, int64_t count) {
  for (const FloatType out_type : kFloatTypes) {
    OddBuffer out(count * element_size(out_type));
    OddBuffer expected(count * element_size(out_type));
    convert(in, in_type, count, out_type, out.data());
    convert_reference(in, in_type, count, out_type, expected.data());
    EXPECT_EQ(out, expected) << "from " << static_cast<int>(in_type) << " to "
                             << static_cast<int>(out_type) << ", " << count << " elements";
  }
}

TEST_P(ConvertTest, EveryValueOf16Bits) {
  std::vector<uint16_t> values(65536);
  std::iota(values.begin(), values.end(), uint16_t{0});
  OddBuffer in(int64_t{2} * 65536);
  std::memcpy(in.data(), values.data(), values.size() * 2);
  expect_as_reference(in.data(), FloatType::bf16, 65536);
  expect_as_reference(in.data(), FloatType::f16, 65536);
}

TEST_P(ConvertTest, RandomBitsTiesAndEdgesOfF32) {
  std::vector<uint32_t> patterns;
  std::mt19937 random(2);
  for (uint32_t upper = 0; upper < 65536; ++upper) {  // every sign, exponent and upper mantissa
    for (const uint32_t lower : {0x0U, 0x1U, 0x0fffU, 0x1000U, 0x1001U, 0x3000U, 0x7fffU, 0x8000U,
                                 0x8001U, 0xffffU, static_cast<uint32_t>(random()) & 0xffffU}) {
      patterns.push_back((upper << 16) | lower);
    }
  }
  const auto count = static_cast<int64_t>(patterns.size());
  OddBuffer in(4 * count);
  std::memcpy(in.data(), patterns.data(), patterns.size() * 4);
  expect_as_reference(in.data(), FloatType::f32, count);
}

TEST_P(ConvertTest, OddSizes) {
  std::mt19937 random(3);
  for (const FloatType in_type : kFloatTypes) {
    expect_as_reference(OddBuffer(0).data(), in_type, 0);
    for (const int64_t count : kOddSizes) {
      OddBuffer in(count * element_size(in_type));
      fill_random_bytes(random, in.data(), count * element_size(in_type));
      expect_as_reference(in.data(), in_type, count);
    }
  }
}

}  // namespace
}  // namespace blockptq::kernels
