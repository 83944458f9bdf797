#include "checkpoint/dtype.h"

#include <gtest/gtest.h>

#include <string>

namespace blockptq {
namespace {

TEST(DtypeTest, NamesAndSizesRoundTrip) {
  const std::vector<std::pair<std::string, int64_t>> all{
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  for (const auto& [name, size] : all) {
    const auto dtype = parse_dtype(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_EQ(dtype_size(*dtype), size);
  }
}

TEST(DtypeTest, UnknownNames) {
  for (const char* name : {"", "f32", "F4", "BF16 ", "F8_E8M0"}) {
    EXPECT_FALSE(parse_dtype(name).has_value()) << name;
  }
}

TEST(DtypeTest, FloatTypes) {
  EXPECT_EQ(float_type(Dtype::bf16), kernels::FloatType::bf16);
  EXPECT_EQ(float_type(Dtype::f16), kernels::FloatType::f16);
  EXPECT_EQ(float_type(Dtype::f32), kernels::FloatType::f32);
  EXPECT_FALSE(float_type(Dtype::f64).has_value());
  EXPECT_FALSE(float_type(Dtype::i8).has_value());
}

}  // namespace
}  // namespace blockptq
