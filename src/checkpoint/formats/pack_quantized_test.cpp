#include "checkpoint/formats/format_test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::TestTensor;

std::string config(int bits, std::string_view strategy, std::string_view more = "") {
  return fmt::format(
      R"({{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{{"group_0":)"
      R"({{"targets":["Linear"],"weights":{{"num_bits":{},"type":"int",{}"strategy":{}}}}}}}}})",
      bits, more, strategy);
}

/// Codes (0, 1, ... wrapping) of a matrix, packed bit by bit.
struct Packed {
  int bits;
  int64_t rows;
  int64_t cols;
  int64_t groups;
  bool zero_points = false;

  int code(int64_t row, int64_t col) const {
    const int levels = 1 << bits;
    return static_cast<int>((row * 31 + col * 7) % levels) - levels / 2;
  }
  int zero_point(int64_t row, int64_t group) const {
    return zero_points ? static_cast<int>((row * 5 + group * 3) % (1 << bits)) - (1 << (bits - 1))
                       : 0;
  }
  float scale(int64_t row, int64_t group) const {
    return 0.01F * static_cast<float>(row * groups + group + 1);
  }
  int64_t words(int64_t count) const { return (count * bits + 31) / 32; }

  TestTensor packed() const {
    std::vector<uint32_t> result(static_cast<size_t>(rows * words(cols)), 0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        const auto unsigned_code = static_cast<uint32_t>(code(row, col) + (1 << (bits - 1)));
        result[static_cast<size_t>(row * words(cols) + col * bits / 32)] |= unsigned_code
                                                                            << (col * bits % 32);
      }
    }
    return make_tensor("a.weight_packed", Dtype::i32, {rows, words(cols)}, result);
  }
  TestTensor zeros() const {
    std::vector<uint32_t> result(static_cast<size_t>(words(rows) * groups), 0);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        const auto unsigned_code =
            static_cast<uint32_t>(zero_point(row, group) + (1 << (bits - 1)));
        result[static_cast<size_t>(row * bits / 32 * groups + group)] |= unsigned_code
                                                                         << (row * bits % 32);
      }
    }
    return make_tensor("a.weight_zero_point", Dtype::i32, {words(rows), groups}, result);
  }
  TestTensor scales() const {
    std::vector<float> result;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t group = 0; group < groups; ++group) {
        result.push_back(scale(row, group));
      }
    }
    return make_tensor("a.weight_scale", Dtype::f32, {rows, groups}, result);
  }
  TestTensor shape() const {
    return make_tensor<int64_t>("a.weight_shape", Dtype::i64, {2}, {rows, cols});
  }
  std::vector<TestTensor> tensors() const {
    std::vector<TestTensor> all{packed(), scales(), shape()};
    if (zero_points) {
      all.push_back(zeros());
    }
    return all;
  }
  std::vector<float> expected() const {
    std::vector<float> result;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        const int64_t group = col / (cols / groups);
        result.push_back(static_cast<float>(code(row, col) - zero_point(row, group)) *
                         scale(row, group));
      }
    }
    return result;
  }
};

class PackQuantizedTest : public testing_support::FormatTest {
 protected:
  void expect_decodes(const Packed& matrix) {
    const Checkpoint checkpoint = open_with(matrix.tensors());
    ASSERT_EQ(checkpoint.tensors().size(), 1);
    const StoredTensor& tensor = checkpoint.at("a.weight");
    EXPECT_EQ(tensor.format->name(), "pack_quantized");
    EXPECT_EQ(tensor.shape, (Shape{matrix.rows, matrix.cols}));
    const std::vector<float> expected = matrix.expected();
    EXPECT_EQ(decode(checkpoint, tensor), expected);
    for (int64_t begin = 0; begin < matrix.rows; begin += 3) {
      const int64_t end = std::min(begin + 4, matrix.rows);
      EXPECT_EQ(decode_rows(checkpoint, tensor, begin, end),
                rows_of(expected, matrix.cols, begin, end));
    }
  }
};

TEST_F(PackQuantizedTest, DecodesGroups) {
  configure(config(4, R"("group","group_size":32)"));
  expect_decodes({.bits = 4, .rows = 6, .cols = 96, .groups = 3});
  configure(config(8, R"("group","group_size":2)"));
  expect_decodes({.bits = 8, .rows = 3, .cols = 6, .groups = 3});
}

TEST_F(PackQuantizedTest, DecodesChannelsOfOddWidth) {
  for (const int bits : {4, 8}) {
    configure(config(bits, R"("channel")"));
    for (const int64_t cols : {1, 3, 7, 8, 9, 33}) {
      expect_decodes({.bits = bits, .rows = 5, .cols = cols, .groups = 1});
    }
  }
}

TEST_F(PackQuantizedTest, DecodesZeroPointsPackedAlongRows) {
  for (const int bits : {4, 8}) {
    configure(config(bits, R"("group","group_size":8)", R"("symmetric":false,)"));
    for (const int64_t rows : {1, 4, 9, 17}) {
      expect_decodes({.bits = bits, .rows = rows, .cols = 24, .groups = 3, .zero_points = true});
    }
  }
}

TEST_F(PackQuantizedTest, ShapeMayBeI32) {
  configure(config(4, R"("channel")"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 5, .groups = 1};
  const Checkpoint checkpoint =
      open_with({matrix.packed(), matrix.scales(),
                 make_tensor<int32_t>("a.weight_shape", Dtype::i32, {2}, {2, 5})});
  EXPECT_EQ(decode(checkpoint, checkpoint.at("a.weight")), matrix.expected());
}

TEST_F(PackQuantizedTest, OpeningAFolderWithGroupsReadsNoData) {
  configure(config(4, R"("group","group_size":8)"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 16, .groups = 2};
  const Checkpoint checkpoint = open_with(matrix.tensors());
  EXPECT_EQ(checkpoint.bytes_read(), 0);
  decode(checkpoint, checkpoint.at("a.weight"));
  EXPECT_EQ(checkpoint.bytes_read(), checkpoint.total_bytes());
}

TEST_F(PackQuantizedTest, RefusesMissingParts) {
  configure(config(4, R"("channel")"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 8, .groups = 1};
  EXPECT_THAT(open_refusal({matrix.packed(), matrix.shape()}),
              HasSubstr("tensor a.weight_packed: I32 without its a.weight_scale"));
  EXPECT_THAT(open_refusal({matrix.packed(), matrix.scales()}),
              HasSubstr("tensor a.weight_packed: I32 without its a.weight_shape"));
  EXPECT_THAT(open_refusal({matrix.scales(), matrix.shape()}),
              HasSubstr("tensor a.weight_scale: a part of a quantized weight"));
  configure(config(4, R"("channel")", R"("symmetric":false,)"));
  EXPECT_THAT(open_refusal({matrix.packed(), matrix.scales(), matrix.shape()}),
              HasSubstr("tensor a.weight_packed: I32 without its a.weight_zero_point"));
}

TEST_F(PackQuantizedTest, RefusesWidthsAndShapesThatDoNotFit) {
  configure(config(4, R"("channel")"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 8, .groups = 1};
  const auto with_shape = [&](Dtype dtype, const Shape& shape, const std::vector<int64_t>& values) {
    return open_refusal(
        {matrix.packed(), matrix.scales(), make_tensor("a.weight_shape", dtype, shape, values)});
  };
  EXPECT_THAT(
      with_shape(Dtype::i64, {2}, {2, 9}),
      HasSubstr("tensor a.weight_packed: 9 columns of 4 bits need I32 [2, 2], found [2, 1]"));
  EXPECT_THAT(with_shape(Dtype::i64, {2}, {3, 8}), HasSubstr("need I32 [3, 1], found [2, 1]"));
  EXPECT_THAT(with_shape(Dtype::i64, {2}, {2, -8}),
              HasSubstr("expected sizes >= 0, found [2, -8]"));
  EXPECT_THAT(with_shape(Dtype::i64, {2}, {2, std::numeric_limits<int64_t>::max()}),
              HasSubstr("tensor a.weight_packed: 9223372036854775807 columns of 4 bits"));
  EXPECT_THAT(with_shape(Dtype::i64, {1}, {2}), HasSubstr("expected I64 [2], found I64 [1]"));
  EXPECT_THAT(with_shape(Dtype::u64, {2}, {2, 8}), HasSubstr("expected I64 [2], found U64 [2]"));
  EXPECT_THAT(open_refusal({make_tensor<int8_t>("a.weight_packed", Dtype::i8, {2, 4},
                                                std::vector<int8_t>(8)),
                            matrix.scales(), matrix.shape()}),
              HasSubstr("tensor a.weight_packed: expected I32 [out, words], found I8 [2, 4]"));
  configure(config(8, R"("channel")"));
  EXPECT_THAT(open_refusal(matrix.tensors()), HasSubstr("8 columns of 8 bits need I32 [2, 2]"));
}

TEST_F(PackQuantizedTest, RefusesGroupsThatDoNotFit) {
  configure(config(4, R"("group","group_size":8)"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 16, .groups = 1};
  EXPECT_THAT(
      open_refusal(matrix.tensors()),
      HasSubstr("tensor a.weight_packed: 8 columns of 4 bits need I32 [2, 1], found [2, 2]"));
  configure(config(4, R"("group","group_size":4611686018427387904)"));
  const Packed two{.bits = 4, .rows = 2, .cols = 16, .groups = 2};
  EXPECT_THAT(open_refusal(two.tensors()), HasSubstr("does not fit in 64 bits"));
  // The scales say 16 columns, the shape says 15: found when it is read.
  configure(config(4, R"("group","group_size":8)"));
  EXPECT_THAT(decode_refusal({two.packed(), two.scales(),
                              make_tensor<int64_t>("a.weight_shape", Dtype::i64, {2}, {2, 15})}),
              HasSubstr("tensor a.weight_shape: expected [2, 16], found [2, 15]"));
}

TEST_F(PackQuantizedTest, RefusesZeroPointsThatDoNotFit) {
  configure(config(4, R"("group","group_size":8)", R"("symmetric":false,)"));
  const Packed matrix{.bits = 4, .rows = 9, .cols = 8, .groups = 1, .zero_points = true};
  for (const Shape& shape : {Shape{9, 1}, Shape{1, 1}, Shape{2}}) {
    EXPECT_THAT(open_refusal({matrix.packed(), matrix.scales(), matrix.shape(),
                              make_tensor("a.weight_zero_point", Dtype::i32, shape,
                                          std::vector<int32_t>(shape[0]))}),
                HasSubstr("tensor a.weight_zero_point: expected I32 [2, 1], found I32 ["));
  }
}

TEST_F(PackQuantizedTest, RefusesTwoWeightsOfOneName) {
  configure(config(4, R"("channel")"));
  const Packed matrix{.bits = 4, .rows = 2, .cols = 8, .groups = 1};
  EXPECT_THAT(open_refusal({matrix.packed(), matrix.scales(), matrix.shape(),
                            make_tensor<float>("a.weight", Dtype::f32, {1, 1}, {1})}),
              HasSubstr("stores a.weight, as does"));
  EXPECT_THAT(open_refusal({matrix.packed(), matrix.scales(), matrix.shape(),
                            make_tensor<int8_t>("a.weight", Dtype::i8, {2, 1}, {1, 1})}),
              HasSubstr("tensor a.weight_scale: a part of a.weight and of another weight"));
}

}  // namespace
}  // namespace blockptq
