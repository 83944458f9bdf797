#include <limits>

#include "checkpoint/formats/format_test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::TestTensor;

constexpr int64_t kRows = 5;
constexpr int64_t kCols = 12;

std::string config(int bits, std::string_view strategy, std::string_view more = "") {
  return fmt::format(
      R"({{"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{{"group_0":)"
      R"({{"targets":["Linear"],"weights":{{"num_bits":{},"type":"int",{}"strategy":{}}}}}}}}})",
      bits, more, strategy);
}

class IntQuantizedTest : public testing_support::FormatTest {
 protected:
  static std::vector<int8_t> codes(int bits) {
    std::vector<int8_t> values;
    values.reserve(kRows * kCols);
    const int levels = 1 << bits;
    for (int i = 0; i < kRows * kCols; ++i) {
      values.push_back(static_cast<int8_t>(i * 23 % levels - levels / 2));
    }
    return values;
  }
  static std::vector<float> scales(int64_t groups) {
    std::vector<float> values;
    for (int64_t i = 0; i < kRows * groups; ++i) {
      values.push_back(0.01F * static_cast<float>(i + 1));
    }
    return values;
  }
  static TestTensor weight(const std::vector<int8_t>& values) {
    return make_tensor("a.weight", Dtype::i8, {kRows, kCols}, values);
  }
  static TestTensor scale(int64_t groups) {
    return make_tensor("a.weight_scale", Dtype::f32, {kRows, groups}, scales(groups));
  }
  static std::vector<float> expected(const std::vector<int8_t>& values, int64_t groups,
                                     const std::vector<int8_t>& zero_points = {}) {
    std::vector<float> result;
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t col = 0; col < kCols; ++col) {
        const auto group = static_cast<size_t>(row * groups + col / (kCols / groups));
        const float zero = zero_points.empty() ? 0.0F : static_cast<float>(zero_points[group]);
        const auto code = static_cast<float>(values[static_cast<size_t>(row * kCols + col)]);
        result.push_back((code - zero) * scales(groups)[group]);
      }
    }
    return result;
  }
};

TEST_F(IntQuantizedTest, ReadsCodesAndScalesAsTheyAre) {
  for (const int bits : {4, 8}) {
    configure(config(bits, R"("channel")"));
    const std::vector<int8_t> values = codes(bits);
    const Checkpoint checkpoint = open_with({weight(values), scale(1)});
    const StoredTensor& tensor = checkpoint.at("a.weight");
    ASSERT_TRUE(tensor.row_codes);
    std::vector<int8_t> found(3 * kCols);
    std::vector<float> found_scales(3);
    checkpoint.decode_codes(tensor, 1, 4, found.data(), found_scales.data());
    EXPECT_THAT(found,
                testing::ElementsAreArray(values.begin() + kCols, values.begin() + 4 * kCols));
    EXPECT_THAT(found_scales, testing::ElementsAre(0.02F, 0.03F, 0.04F));
  }
}

TEST_F(IntQuantizedTest, GroupsAndZeroPointsAreNoRowCodes) {
  configure(config(8, R"("group","group_size":4)"));
  EXPECT_FALSE(open_with({weight(codes(8)), scale(3)}).at("a.weight").row_codes);
}

TEST_F(IntQuantizedTest, DecodesChannels) {
  for (const int bits : {4, 8}) {
    configure(config(bits, R"("channel")"));
    const Checkpoint checkpoint = open_with({weight(codes(bits)), scale(1)});
    const StoredTensor& tensor = checkpoint.at("a.weight");
    EXPECT_EQ(tensor.format->name(), "int_quantized");
    EXPECT_EQ(tensor.bits, bits);
    EXPECT_EQ(decode(checkpoint, tensor), expected(codes(bits), 1));
    EXPECT_EQ(checkpoint.bytes_read(), checkpoint.total_bytes());
    EXPECT_EQ(decode_rows(checkpoint, tensor, 2, 4),
              rows_of(expected(codes(bits), 1), kCols, 2, 4));
  }
}

TEST_F(IntQuantizedTest, DecodesGroups) {
  configure(config(8, R"("group","group_size":4)"));
  const Checkpoint checkpoint = open_with({weight(codes(8)), scale(3)});
  EXPECT_EQ(decode(checkpoint, checkpoint.at("a.weight")), expected(codes(8), 3));
}

TEST_F(IntQuantizedTest, DecodesZeroPoints) {
  configure(config(4, R"("channel")", R"("symmetric":false,)"));
  const std::vector<int8_t> zero_points{-8, 7, 0, 3, -1};
  const TestTensor zero = make_tensor("a.weight_zero_point", Dtype::i8, {kRows, 1}, zero_points);
  const Checkpoint checkpoint = open_with({weight(codes(4)), scale(1), zero});
  const StoredTensor& tensor = checkpoint.at("a.weight");
  EXPECT_EQ(decode(checkpoint, tensor), expected(codes(4), 1, zero_points));
  EXPECT_EQ(decode_rows(checkpoint, tensor, 1, 2),
            rows_of(expected(codes(4), 1, zero_points), kCols, 1, 2));
  EXPECT_THAT(open_refusal({weight(codes(4)), scale(1)}),
              HasSubstr("tensor a.weight: I8 without its a.weight_zero_point"));
  EXPECT_THAT(open_refusal({weight(codes(4)), scale(1),
                            make_tensor<int8_t>("a.weight_zero_point", Dtype::i8, {1}, {0})}),
              HasSubstr("tensor a.weight_zero_point: expected I8 [5, 1], found I8 [1]"));
  EXPECT_THAT(
      decode_refusal(
          {weight(codes(4)), scale(1),
           make_tensor<int8_t>("a.weight_zero_point", Dtype::i8, {kRows, 1}, {0, 0, 9, 0, 0})}),
      HasSubstr("tensor a.weight_zero_point: expected 4-bit codes from -8 to 7, found 9 at"));
}

TEST_F(IntQuantizedTest, ScalesMayBeHalfPrecision) {
  configure(config(8, R"("channel")"));
  std::vector<float> wanted;
  for (const int8_t code : codes(8)) {
    wanted.push_back(static_cast<float>(code) * 0.5F);
  }
  for (const auto& [dtype, half] :
       {std::pair(Dtype::bf16, 0x3f00), std::pair(Dtype::f16, 0x3800)}) {
    const std::vector<uint16_t> halves(kRows, static_cast<uint16_t>(half));
    const Checkpoint checkpoint =
        open_with({weight(codes(8)), make_tensor("a.weight_scale", dtype, {kRows, 1}, halves)});
    EXPECT_EQ(decode(checkpoint, checkpoint.at("a.weight")), wanted);
  }
}

TEST_F(IntQuantizedTest, RefusesCodesOutsideTheirBits) {
  configure(config(4, R"("channel")"));
  for (const int bad : {8, -9, 127, -128}) {
    std::vector<int8_t> values = codes(4);
    values[25] = static_cast<int8_t>(bad);
    EXPECT_THAT(
        decode_refusal({weight(values), scale(1)}),
        HasSubstr(fmt::format("model.safetensors: tensor a.weight: expected 4-bit codes from "
                              "-8 to 7, found {} at [2, 1]",
                              bad)));
  }
}

TEST_F(IntQuantizedTest, RefusesPartsThatDoNotFit) {
  configure(config(8, R"("channel")"));
  EXPECT_THAT(open_refusal({weight(codes(8))}),
              HasSubstr("tensor a.weight: I8 without its a.weight_scale"));
  EXPECT_THAT(open_refusal({scale(1)}), HasSubstr("a.weight_scale: a part of a quantized weight"));
  EXPECT_THAT(open_refusal({weight(codes(8)), scale(3)}),
              HasSubstr("tensor a.weight_scale: expected shape [5, 1], found [5, 3]"));
  EXPECT_THAT(open_refusal({make_tensor<int8_t>("a.weight", Dtype::i8, {2}, {1, 2})}),
              HasSubstr("tensor a.weight: expected shape [out, in], found [2]"));
  EXPECT_THAT(open_refusal({weight(codes(8)), scale(1),
                            make_tensor<int32_t>("a.weight_g_idx", Dtype::i32, {1}, {0})}),
              HasSubstr("tensor a.weight_g_idx: columns in another order"));
  configure(config(8, R"("group","group_size":5)"));
  EXPECT_THAT(open_refusal({weight(codes(8)), scale(3)}),
              HasSubstr("tensor a.weight: 12 columns, which groups of 5 do not divide"));
  configure(config(8, R"("group","group_size":4)"));
  EXPECT_THAT(open_refusal({weight(codes(8)), scale(1)}),
              HasSubstr("tensor a.weight_scale: expected shape [5, 3], found [5, 1]"));
}

TEST_F(IntQuantizedTest, RefusesBadScales) {
  configure(config(8, R"("channel")"));
  for (const float bad : {0.0F, -1.0F, std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(
        decode_refusal({weight(codes(8)), make_tensor<float>("a.weight_scale", Dtype::f32,
                                                             {kRows, 1}, {1, 1, bad, 1, 1})}),
        HasSubstr("tensor a.weight_scale: expected finite scales > 0, found "));
  }
}

}  // namespace
}  // namespace blockptq
