#include "kernels/nibbles.h"

#include <gtest/gtest.h>

#include <vector>

namespace blockptq::kernels {
namespace {

TEST(Nibbles, EveryPairOfCodesComesBack) {
  std::vector<int8_t> low;
  std::vector<int8_t> high;
  for (int a = -8; a < 8; ++a) {
    for (int b = -8; b < 8; ++b) {
      low.push_back(static_cast<int8_t>(a));
      high.push_back(static_cast<int8_t>(b));
    }
  }
  const auto count = static_cast<int64_t>(low.size());
  std::vector<uint8_t> packed(low.size());
  pack_nibbles(low.data(), high.data(), count, packed.data());
  std::vector<int8_t> found(low.size());
  unpack_nibbles(packed.data(), count, /*high=*/false, found.data());
  EXPECT_EQ(found, low);
  unpack_nibbles(packed.data(), count, /*high=*/true, found.data());
  EXPECT_EQ(found, high);
}

TEST(Nibbles, LayoutOfTheSample) {
  const std::vector<int8_t> even{1, 2, -5, 6};
  const std::vector<int8_t> odd{3, -4, 7, -8};
  std::vector<uint8_t> packed(4);
  pack_nibbles(even.data(), odd.data(), 4, packed.data());
  EXPECT_EQ(packed, (std::vector<uint8_t>{0x31, 0xc2, 0x7b, 0x86}));
}

TEST(ScaledSum, ExactWhereFloatsAre) {
  for (const int64_t count : {0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 511, 512, 513, 7168}) {
    std::vector<int8_t> codes;
    int64_t sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      codes.push_back(static_cast<int8_t>(i * 7 % 16 - 8));
      sum += codes.back();
    }
    EXPECT_EQ(scaled_sum(codes.data(), count, 0.25F), 0.25F * static_cast<float>(sum)) << count;
  }
}

}  // namespace
}  // namespace blockptq::kernels
