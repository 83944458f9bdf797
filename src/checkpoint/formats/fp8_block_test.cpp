#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoint/formats/format_test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::TestTensor;
using testing_support::write_shard;

/// E4M3 as its definition says: sign, 4 bits of exponent with bias 7, 3 bits of mantissa.
float e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return static_cast<float>((code & 0x80) != 0 ? -magnitude : magnitude);
}

class Fp8BlockTest : public testing_support::FormatTest {
 protected:
  static constexpr int64_t kRows = 11;
  static constexpr int64_t kCols = 10;
  static constexpr int64_t kBlockRows = 4;
  static constexpr int64_t kBlockCols = 3;

  Fp8BlockTest() {
    configure(R"({"quant_method":"fp8","fmt":"e4m3","weight_block_size":[4,3]})");
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const auto code = static_cast<uint8_t>(i * 37);
      codes_.push_back((code & 0x7f) == 0x7f ? 0 : code);
    }
    for (int i = 0; i < 3 * 4; ++i) {
      scales_.push_back(0.01F * static_cast<float>(i + 1));
    }
  }

  TestTensor weight() const {
    return make_tensor("a.weight", Dtype::f8_e4m3, {kRows, kCols}, codes_);
  }
  TestTensor scale() const {
    return make_tensor("a.weight_scale_inv", Dtype::f32, {3, 4}, scales_);
  }
  std::vector<float> expected() const {
    std::vector<float> values;
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t col = 0; col < kCols; ++col) {
        values.push_back(e4m3(codes_[static_cast<size_t>(row * kCols + col)]) *
                         scales_[static_cast<size_t>(row / kBlockRows * 4 + col / kBlockCols)]);
      }
    }
    return values;
  }

  std::vector<uint8_t> codes_;
  std::vector<float> scales_;
};

TEST_F(Fp8BlockTest, DecodesAnyRows) {
  const Checkpoint checkpoint = open_with({scale(), weight()});
  ASSERT_EQ(checkpoint.tensors().size(), 1);
  const StoredTensor& tensor = checkpoint.at("a.weight");
  EXPECT_EQ(tensor.format->name(), "fp8_block");
  EXPECT_EQ(tensor.nbytes(), kRows * kCols + 48);
  for (int64_t begin = 0; begin < kRows; ++begin) {
    for (int64_t end = begin; end <= kRows; ++end) {
      EXPECT_EQ(decode_rows(checkpoint, tensor, begin, end),
                rows_of(expected(), kCols, begin, end));
    }
  }
}

TEST_F(Fp8BlockTest, CountsEveryByteOnce) {
  const Checkpoint checkpoint = open_with({weight(), scale()});
  decode(checkpoint, checkpoint.at("a.weight"));
  EXPECT_EQ(checkpoint.bytes_read(), checkpoint.total_bytes());
}

TEST_F(Fp8BlockTest, PartsMayLieInDifferentShards) {
  write_shard(dir_ / "1.safetensors", {weight()});
  write_shard(dir_ / "2.safetensors", {make_tensor<float>("b", Dtype::f32, {1}, {1}), scale()});
  testing_support::write_text(
      dir_ / kIndexName,
      R"({"weight_map":{"a.weight":"1.safetensors","a.weight_scale_inv":"2.safetensors","b":"2.safetensors"}})");
  const Checkpoint checkpoint = Checkpoint::open(dir_.path());
  ASSERT_EQ(checkpoint.tensors().size(), 2);
  EXPECT_EQ(decode(checkpoint, checkpoint.at("a.weight")), expected());
}

TEST_F(Fp8BlockTest, ScalesMayBeBf16) {
  const std::vector<uint16_t> ones(12, 0x3f80);
  std::fill(scales_.begin(), scales_.end(), 1.0F);
  const Checkpoint checkpoint =
      open_with({weight(), make_tensor("a.weight_scale_inv", Dtype::bf16, {3, 4}, ones)});
  EXPECT_EQ(decode(checkpoint, checkpoint.at("a.weight")), expected());
}

TEST_F(Fp8BlockTest, LeavesOtherTensorsPlain) {
  const Checkpoint checkpoint =
      open_with({weight(), scale(), make_tensor<float>("norm.weight", Dtype::f32, {2}, {1, 2})});
  EXPECT_EQ(checkpoint.at("norm.weight").format->name(), "plain");
}

TEST_F(Fp8BlockTest, RefusesMissingParts) {
  EXPECT_THAT(
      open_refusal({weight()}),
      HasSubstr("model.safetensors: tensor a.weight: F8_E4M3 without its a.weight_scale_inv"));
  EXPECT_THAT(open_refusal({scale()}),
              HasSubstr("tensor a.weight_scale_inv: a part of a quantized weight, but"));
  EXPECT_THAT(open_refusal({scale(), make_tensor<float>("a.weight", Dtype::f32, {1, 1}, {1})}),
              HasSubstr("tensor a.weight_scale_inv: a part of a quantized weight, but"));
}

TEST_F(Fp8BlockTest, RefusesOtherShapes) {
  const std::vector<float> ones(12, 1.0F);
  for (const Shape& shape : {Shape{4, 3}, Shape{12}, Shape{3, 4, 1}, Shape{1, 12}}) {
    EXPECT_THAT(
        open_refusal({weight(), make_tensor("a.weight_scale_inv", Dtype::f32, shape, ones)}),
        HasSubstr("tensor a.weight_scale_inv: expected shape [3, 4], found ["));
  }
  EXPECT_THAT(open_refusal({weight(), make_tensor<int32_t>("a.weight_scale_inv", Dtype::i32, {3, 4},
                                                           std::vector<int32_t>(12, 1))}),
              HasSubstr("expected scales of type F32, BF16 or F16, found I32"));
  EXPECT_THAT(
      open_refusal({make_tensor<uint8_t>("a.weight", Dtype::f8_e4m3, {2}, {0, 0}), scale()}),
      HasSubstr("tensor a.weight: expected FP8 values in a tensor [out, in]"));
  EXPECT_THAT(open_refusal({make_tensor<uint8_t>("a.bias", Dtype::f8_e4m3, {1, 1}, {0})}),
              HasSubstr("tensor a.bias: expected FP8 values in a tensor [out, in]"));
}

TEST_F(Fp8BlockTest, RefusesNanCodesWhenTheyAreRead) {
  for (const int code : {0x7f, 0xff}) {
    codes_[57] = static_cast<uint8_t>(code);
    EXPECT_THAT(decode_refusal({weight(), scale()}),
                HasSubstr(fmt::format("model.safetensors: tensor a.weight: expected numbers, found "
                                      "the NaN code {:#04x} at [5, 7]",
                                      code)));
  }
  const Checkpoint checkpoint = open_with({weight(), scale()});
  EXPECT_NO_THROW(decode_rows(checkpoint, checkpoint.at("a.weight"), 6, 8));
}

TEST_F(Fp8BlockTest, RefusesScalesThatAreNotPositiveNumbers) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float bad : {0.0F, -0.0F, -1.0F, kInf, -kInf, std::nanf("")}) {
    scales_[6] = bad;
    EXPECT_THAT(decode_refusal({weight(), scale()}),
                HasSubstr("tensor a.weight_scale_inv: expected finite scales > 0, found "))
        << bad;
    EXPECT_THAT(decode_refusal({weight(), scale()}), HasSubstr(" at [1, 2]"));
  }
}

TEST_F(Fp8BlockTest, RefusesConfigs) {
  const auto with_config = [&](std::string_view config) {
    configure(config);
    return open_refusal({weight(), scale()});
  };
  EXPECT_THAT(with_config(R"({"quant_method":"fp8"})"),
              HasSubstr("quantization_config: key 'weight_block_size' is missing"));
  EXPECT_THAT(with_config(R"({"quant_method":"fp8","weight_block_size":128})"),
              HasSubstr("weight_block_size: expected an array"));
  EXPECT_THAT(with_config(R"({"quant_method":"fp8","weight_block_size":[128]})"),
              HasSubstr("expected 2 numbers, found 1"));
  for (const char* size : {"[0,128]", "[-1,128]", "[128,1.5]", "[128,9223372036854775807]"}) {
    EXPECT_THAT(
        with_config(fmt::format(R"({{"quant_method":"fp8","weight_block_size":{}}})", size)),
        HasSubstr("expected an integer from 1 to"));
  }
  EXPECT_THAT(with_config(R"({"quant_method":"fp8","fmt":"e5m2","weight_block_size":[4,3]})"),
              HasSubstr("quantization_config.fmt: expected e4m3, found \"e5m2\""));
}

TEST(Fp8TinyModelTest, ReadsEveryByteOnce) {
  const Checkpoint checkpoint = Checkpoint::open(BLOCKPTQ_SOURCE_DIR "/models/tiny-v32-fp8");
  int fp8_tensors = 0;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    std::vector<float> out(static_cast<size_t>(tensor.rows() * tensor.row_size()));
    checkpoint.decode(tensor, kernels::FloatType::f32, out.data());
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }))
        << tensor.name;
    fp8_tensors += tensor.format->name() == "fp8_block" ? 1 : 0;
  }
  EXPECT_EQ(fp8_tensors, 310);
  EXPECT_EQ(checkpoint.bytes_read(), checkpoint.total_bytes());
}

}  // namespace
}  // namespace blockptq
