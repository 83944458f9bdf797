#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/formats/compressed_tensors_config.h"
#include "checkpoint/formats/output_format.h"
#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;

OutputTensor linear(const std::string& module, const std::string& role, int bits) {
  return {module + ".weight", role, {8, 8}, 0, bits, bits == 16 ? 16 : 8};
}

OutputScheme small_model(int expert_bits) {
  OutputScheme scheme;
  scheme.tensors = {{"model.embed_tokens.weight", "embedding", {8, 8}},
                    linear("model.layers.0.self_attn.o_proj", "attention.o_proj", 8),
                    linear("model.layers.0.self_attn.kv_b_proj", "attention.kv_b_proj", 16),
                    linear("lm_head", "lm_head", 16)};
  for (const int layer : {0, 1}) {
    for (const char* name : {"gate_proj", "up_proj", "down_proj"}) {
      for (const int expert : {0, 1}) {
        scheme.tensors.push_back(
            linear(fmt::format("model.layers.{}.mlp.experts.{}.{}", layer, expert, name),
                   std::string("expert.") + name, expert_bits));
      }
    }
  }
  return scheme;
}

const OutputFormat& format() {
  return output_format("compressed-tensors");
}

TEST(CompressedTensorsOutput, ConfigOfFourBitExperts) {
  const Json expected = parse_json(R"({
    "quant_method": "compressed-tensors", "format": "int-quantized",
    "quantization_status": "compressed", "global_compression_ratio": null,
    "kv_cache_scheme": null, "ignore": ["model.layers.0.self_attn.kv_b_proj", "lm_head"],
    "config_groups": {
      "group_0": {"targets": ["Linear"],
        "weights": {"num_bits": 8, "type": "int", "symmetric": true, "strategy": "channel",
                    "dynamic": false},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": true,
                              "strategy": "token", "dynamic": true}},
      "group_1": {"targets": ["re:.*mlp\\.experts\\.\\d+\\.(gate|up|down)_proj$"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": true, "strategy": "channel",
                    "dynamic": false},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": true,
                              "strategy": "token", "dynamic": true}}}})",
                                   "expected");
  EXPECT_EQ(format().quantization_config(small_model(4)), expected);
}

TEST(CompressedTensorsOutput, OneGroupWhereAllIsAlikeAndNoneWithoutIntegers) {
  EXPECT_EQ(format().quantization_config(small_model(8))["config_groups"].size(), 1U);
  OutputScheme scheme;
  scheme.tensors = {linear("lm_head", "lm_head", 16)};
  EXPECT_TRUE(format().quantization_config(scheme).is_null());
}

TEST(CompressedTensorsOutput, ReaderFindsTheSchemeOfEveryModule) {
  OutputScheme scheme = small_model(4);
  // One expert stays at 8 bits: no pattern tells it from the others.
  for (OutputTensor& tensor : scheme.tensors) {
    if (tensor.name == "model.layers.1.mlp.experts.0.up_proj.weight") {
      tensor.weight_bits = 8;
    }
  }
  const Json config = format().quantization_config(scheme);
  const CompressedTensorsConfig reader(JsonView(config, "config.json"));
  for (const OutputTensor& tensor : scheme.tensors) {
    if (tensor.quantized()) {
      EXPECT_EQ(reader.scheme_of(module_name(tensor), "test").bits, tensor.weight_bits)
          << tensor.name;
    }
  }
}

TEST(CompressedTensorsOutput, RefusesClipsAndOddWidths) {
  OutputScheme scheme = small_model(4);
  scheme.clips = {{"model.layers.0.mlp.experts.0.down_proj.weight", 0.9F}};
  EXPECT_THAT(refusal([&] { format().check_scheme(scheme); }),
              testing::AllOf(HasSubstr("--format ascend"), HasSubstr("without --lac"),
                             HasSubstr("experts.0.down_proj")));
  EXPECT_THAT(refusal([&] { format().check_scheme(small_model(5)); }),
              HasSubstr("expected weights of 8, 4 or 16 bits, found 5"));
}

TEST(OutputFormats, UnknownNameListsTheKnown) {
  EXPECT_THAT(refusal([] { output_format("gguf"); }), HasSubstr("compressed-tensors, ascend"));
}

}  // namespace
}  // namespace blockptq
