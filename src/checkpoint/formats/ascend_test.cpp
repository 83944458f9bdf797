#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint/formats/format_test_support.h"
#include "checkpoint/formats/output_format.h"

namespace blockptq {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::refusal;
using testing_support::TestTensor;

constexpr std::string_view kConfig =
    R"({"quant_method":"compressed-tensors","format":"int-quantized","config_groups":{"group_0":)"
    R"({"targets":["Linear"],"weights":{"num_bits":8,"strategy":"channel"}},"group_1":)"
    R"({"targets":["MoEGMM"],"weights":{"num_bits":4,"strategy":"channel"}}}})";

uint64_t wide(float scale) {
  return std::bit_cast<uint32_t>(scale);
}

class AscendTest : public testing_support::FormatTest {
 protected:
  void SetUp() override { configure(kConfig); }

  // The worked example of the layout: rows 0 and 1 share the first row of bytes.
  static std::vector<TestTensor> packed(const std::vector<uint64_t>& scales) {
    return {make_tensor<uint8_t>("e.weight", Dtype::i8, {2, 2}, {0x31, 0xc2, 0x7b, 0x86}),
            make_tensor("e.weight_scale", Dtype::u64, {4, 1}, scales),
            make_tensor<float>("e.bias", Dtype::f32, {4}, {0, 0, 0, 0})};
  }
};

TEST_F(AscendTest, UnpacksRowsInPairs) {
  const Checkpoint checkpoint = open_with(packed({wide(1), wide(2), wide(0.5F), wide(4)}));
  const StoredTensor& tensor = checkpoint.at("e.weight");
  EXPECT_EQ(tensor.shape, (Shape{4, 2}));
  EXPECT_EQ(tensor.bits, 4);
  EXPECT_TRUE(tensor.row_codes);
  EXPECT_THAT(decode(checkpoint, tensor), ElementsAre(1, 2, 6, -8, -2.5F, 3, 28, -32));
  EXPECT_THAT(decode_rows(checkpoint, tensor, 1, 3), ElementsAre(6, -8, -2.5F, 3));
  std::vector<int8_t> codes(4);
  std::vector<float> scales(2);
  checkpoint.decode_codes(tensor, 1, 3, codes.data(), scales.data());
  EXPECT_THAT(codes, ElementsAre(3, -4, -5, 6));
  EXPECT_THAT(scales, ElementsAre(2, 0.5F));
}

TEST_F(AscendTest, RefusesScalesThatAreNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const uint64_t bad : {uint64_t{0}, wide(nan), wide(-1), wide(1) | uint64_t{1} << 32}) {
    EXPECT_THAT(decode_refusal(packed({wide(1), wide(2), bad, wide(4)})),
                HasSubstr("e.weight_scale: expected a finite scale > 0 in the low 32 bits"));
  }
}

TEST_F(AscendTest, RefusesShapesThatDoNotFit) {
  std::vector<TestTensor> tensors = packed({wide(1), wide(2), wide(3), wide(4)});
  tensors[1] = make_tensor<uint64_t>("e.weight_scale", Dtype::u64, {2, 1}, {1, 1});
  EXPECT_THAT(open_refusal(tensors), HasSubstr("e.weight_scale: expected shape [4, 1]"));
  tensors = packed({wide(1), wide(2), wide(3), wide(4)});
  tensors.pop_back();
  EXPECT_THAT(open_refusal(tensors), HasSubstr("without its e.bias"));
}

TEST_F(AscendTest, DescriptionsAreNoWeights) {
  std::vector<TestTensor> tensors = packed({wide(1), wide(2), wide(3), wide(4)});
  tensors.push_back(make_tensor<float>("m.down_proj.alpha", Dtype::f32, {1}, {0.5F}));
  const Checkpoint checkpoint = open_with(tensors);
  EXPECT_TRUE(checkpoint.at("m.down_proj.alpha").auxiliary);
  EXPECT_THAT(decode(checkpoint, checkpoint.at("m.down_proj.alpha")), ElementsAre(0.5F));
  EXPECT_FALSE(checkpoint.at("e.weight").auxiliary);
}

// --- writing ---

OutputTensor expert(const std::string& linear, Shape shape, int bits) {
  return {"model.layers.3.mlp.experts.5." + linear + ".weight",
          "expert." + linear,
          std::move(shape),
          3,
          bits,
          8};
}

/// The bytes of all tensors of a weight.
std::string encode(const OutputTensor& tensor, const std::vector<int8_t>& codes,
                   const std::vector<float>& scales) {
  std::string bytes;
  const auto append = [&](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
  };
  const int64_t cols = tensor.shape[1];
  const auto encoder = output_format("ascend").encoder(tensor);
  for (int64_t row = 0; row < tensor.shape[0]; row += 2) {
    encoder->add({codes.data() + row * cols, scales.data() + row, 2, cols}, append);
  }
  encoder->finish(append);
  return bytes;
}

TEST(AscendOutput, PacksPairsOfRows) {
  const OutputTensor tensor = expert("up_proj", {4, 2}, 4);
  const std::string bytes = encode(tensor, {1, 2, 3, -4, -5, 6, 7, -8}, {1, 2, 0.5F, 4});
  ASSERT_EQ(bytes.size(), 4 + 4 * 8 + 4 * 4U);
  EXPECT_EQ(bytes.substr(0, 4), "\x31\xc2\x7b\x86");
  std::vector<uint64_t> scales(4);
  std::memcpy(scales.data(), bytes.data() + 4, 32);
  EXPECT_THAT(scales, ElementsAre(wide(1), wide(2), wide(0.5F), wide(4)));
  std::vector<float> bias(4);
  std::memcpy(bias.data(), bytes.data() + 36, 16);
  EXPECT_THAT(bias, ElementsAre(8 * 3, 8 * -2, 8 * 0.5F, 8 * -4));
}

TEST(AscendOutput, NamesTypesAndShapes) {
  const OutputFormat& format = output_format("ascend");
  const std::vector<TensorSpec> four = format.weight_specs(expert("up_proj", {6, 5}, 4));
  ASSERT_EQ(four.size(), 3U);
  EXPECT_EQ(four[0].shape, (Shape{3, 5}));
  EXPECT_EQ(four[1].dtype, Dtype::u64);
  EXPECT_EQ(four[1].shape, (Shape{6, 1}));
  EXPECT_EQ(four[2].name, "model.layers.3.mlp.experts.5.up_proj.bias");
  const std::vector<TensorSpec> eight = format.weight_specs(expert("up_proj", {6, 5}, 8));
  ASSERT_EQ(eight.size(), 2U);
  EXPECT_EQ(eight[0].dtype, Dtype::i8);
  EXPECT_EQ(eight[1].dtype, Dtype::f32);
}

TEST(AscendOutput, RefusesWhatTheLayoutCannotHold) {
  const OutputFormat& format = output_format("ascend");
  const auto refused = [&](const OutputTensor& tensor) {
    OutputScheme scheme;
    scheme.tensors = {tensor};
    return refusal([&] { format.check_scheme(scheme); });
  };
  EXPECT_THAT(refused(expert("up_proj", {5, 4}, 4)), HasSubstr("found 5 rows"));
  EXPECT_THAT(refused(expert("up_proj", {4, 4}, 3)), HasSubstr("found 8 and 3"));
  EXPECT_THAT(refused({"model.layers.0.mlp.up_proj.weight", "mlp.up_proj", {4, 4}, 0, 4, 8}),
              HasSubstr("4 in routed experts"));
}

TEST(AscendOutput, ConstantsOfInt8CacheAndClips) {
  OutputScheme scheme;
  scheme.int8_cache = true;
  scheme.cache_group = 128;
  scheme.tensors = {{"model.layers.0.self_attn.indexer.wk.weight", "indexer.wk", {4, 8}, 0},
                    {"model.layers.0.self_attn.kv_b_proj.weight", "attention.kv_b_proj", {8, 8}, 0},
                    {"model.layers.0.mlp.gate_proj.weight", "mlp.gate_proj", {8, 8}, 0, 8, 8},
                    {"model.layers.0.mlp.down_proj.weight", "mlp.down_proj", {8, 8}, 0, 8, 8}};
  scheme.clips = {{"model.layers.0.self_attn.kv_b_proj.weight", 0.75F},
                  {"model.layers.0.mlp.gate_proj.weight", 0.5F}};
  const OutputFormat& format = output_format("ascend");
  EXPECT_THAT(format.check_scheme(scheme), ElementsAre("model.layers.0.mlp.gate_proj.weight"));
  const std::vector<ConstantTensor> constants = format.constants(scheme);
  ASSERT_EQ(constants.size(), 3U);
  EXPECT_EQ(constants[0].spec.name, "model.layers.0.self_attn.indexer.hadamard_matrix");
  // Sylvester's matrix of order 4, halved: 0.5 is 0x3f00 in BF16.
  std::vector<uint16_t> matrix(16);
  std::memcpy(matrix.data(), constants[0].bytes.data(), 32);
  constexpr uint16_t kPlus = 0x3f00;
  constexpr uint16_t kMinus = 0xbf00;
  EXPECT_THAT(matrix, ElementsAre(kPlus, kPlus, kPlus, kPlus, kPlus, kMinus, kPlus, kMinus, kPlus,
                                  kPlus, kMinus, kMinus, kPlus, kMinus, kMinus, kPlus));
  EXPECT_EQ(constants[1].spec.name, "model.layers.0.self_attn.ckv_a_alpha");
  float alpha = 0;
  std::memcpy(&alpha, constants[1].bytes.data(), sizeof(alpha));
  EXPECT_EQ(alpha, 0.75F);
  EXPECT_EQ(constants[2].spec.name, "model.layers.0.mlp.down_proj.alpha");
  std::memcpy(&alpha, constants[2].bytes.data(), sizeof(alpha));
  EXPECT_EQ(alpha, 1.0F) << "not learned: neutral";
}

}  // namespace
}  // namespace blockptq
