#include "base/size.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(SizeTest, CheckedArithmetic) {
  EXPECT_EQ(checked_mul(3, 4, "x"), 12);
  EXPECT_EQ(checked_mul(0, kMax, "x"), 0);
  EXPECT_EQ(checked_add(kMax, 0, "x"), kMax);
  EXPECT_THROW(checked_mul(int64_t{1} << 32, int64_t{1} << 31, "x"), Error);
  EXPECT_THROW(checked_mul(-1, 1, "x"), Error);
  EXPECT_THROW(checked_add(kMax, 1, "x"), Error);
  EXPECT_THROW(checked_add(1, -1, "x"), Error);
  EXPECT_EQ(ceil_div(128, 128), 1);
  EXPECT_EQ(ceil_div(129, 128), 2);
  EXPECT_EQ(ceil_div(0, 128), 0);
}

TEST(SizeTest, ParseSize) {
  EXPECT_EQ(parse_size("512", "--x"), 512);
  EXPECT_EQ(parse_size("5GB", "--x"), 5'000'000'000);
  EXPECT_EQ(parse_size("5g", "--x"), 5'000'000'000);
  EXPECT_EQ(parse_size("2 GiB", "--x"), int64_t{2} << 30);
  EXPECT_EQ(parse_size("1.5KB", "--x"), 1500);
  for (const char* text : {"", "GB", "0", "-1GB", "5XB", "5GB!", "nan", "inf", "1e30"}) {
    EXPECT_THROW(parse_size(text, "--x"), Error) << text;
  }
}

TEST(SizeTest, Formats) {
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1'500'000'000), "1.50 GB");
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(1'000), "1,000");
  EXPECT_EQ(format_count(1'234'567), "1,234,567");
  EXPECT_EQ(format_count(-100), "-100");
  EXPECT_EQ(format_count(-1'234), "-1,234");
  EXPECT_EQ(format_seconds(12.34), "12.3 s");
  EXPECT_EQ(format_seconds(59.97), "1 min 00 s");
  EXPECT_EQ(format_seconds(245), "4 min 05 s");
  EXPECT_EQ(format_seconds(3599.7), "1 h 00 min");
  EXPECT_EQ(format_seconds(7384), "2 h 03 min");
}

}  // namespace
}  // namespace blockptq
