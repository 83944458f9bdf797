#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "models/families.h"
#include "models/gqa/config.h"
#include "models/rope_config.h"
#include "models/test_support.h"

namespace blockptq {
namespace {

std::filesystem::path folder_of(const std::string& family) {
  return std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / "tests/fixtures/families" / family;
}

Json config_of(const std::string& family) {
  const auto path = folder_of(family) / "config.json";
  return parse_json(read_file(path), path.string());
}

/// Whether the changed config.json of `family` is refused with a message that matches.
void expect_refusal(const char* family, const char* pattern,
                    const std::function<void(Json&)>& change) {
  Json config = config_of(family);
  change(config);
  std::string message;
  try {
    make_model({config, "config.json"});
  } catch (const Error& error) {
    message = error.what();
  }
  using testing::internal::RE;
  EXPECT_TRUE(RE::PartialMatch(message, RE(pattern))) << pattern << " <- " << message;
}

TEST(GqaConfig, ReadsHeads) {
  Json config = config_of("llama");
  EXPECT_EQ(gqa::parse_llama({config, "config.json"}).attention.head_dim, 16);
  EXPECT_EQ(gqa::parse_llama({config, "config.json"}).attention.kv_heads, 2);
  config.erase("num_key_value_heads");
  config["head_dim"] = 20;
  EXPECT_EQ(gqa::parse_llama({config, "config.json"}).attention.kv_heads, 4);
  EXPECT_EQ(gqa::parse_llama({config, "config.json"}).attention.head_dim, 20);
}

TEST(GqaConfig, SparseStepAndMlpOnlyLayersChooseTheMoeBlocks) {
  Json config = config_of("qwen3_moe");
  const auto moe_blocks = [&] {
    const auto parsed = gqa::parse_qwen3_moe({config, "config.json"});
    std::vector<int64_t> blocks;
    for (int64_t block = 0; block < parsed.model.blocks; ++block) {
      if (parsed.is_moe(block)) {
        blocks.push_back(block);
      }
    }
    return blocks;
  };
  EXPECT_EQ(moe_blocks(), (std::vector<int64_t>{1}));  // of every second block, not block 3
  config["mlp_only_layers"] = Json::array();
  EXPECT_EQ(moe_blocks(), (std::vector<int64_t>{1, 3}));
  config["decoder_sparse_step"] = 1;
  EXPECT_EQ(moe_blocks(), (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(GqaConfig, BothSpellingsOfRope) {
  for (const char* family : {"llama", "qwen3_moe"}) {
    Json config = config_of(family);
    const auto official = parse_rope({config, "config.json"}, 16);
    config["rope_parameters"] = config["rope_scaling"];
    config["rope_parameters"]["rope_theta"] = config["rope_theta"];
    config.erase("rope_scaling");
    config.erase("rope_theta");
    const auto transformers5 = parse_rope({config, "config.json"}, 16);
    EXPECT_EQ(official.theta, transformers5.theta);
    EXPECT_TRUE(at::equal(nn::make_rope_table(official, 9, at::kCPU).cos,
                          nn::make_rope_table(transformers5, 9, at::kCPU).cos));
  }
}

TEST(GqaConfig, RefusalsOfAttention) {
  expect_refusal("llama",
                 "num_key_value_heads: expected a divisor of num_attention_heads = 4, found 3",
                 [](Json& c) { c["num_key_value_heads"] = 3; });
  expect_refusal("llama", "num_key_value_heads: .*found 0",
                 [](Json& c) { c["num_key_value_heads"] = 0; });
  expect_refusal("llama", "num_attention_heads: expected a divisor of hidden_size = 64.*found 6",
                 [](Json& c) { c["num_attention_heads"] = 6; });
  expect_refusal("qwen3", "head_dim: expected an even number, found 31",
                 [](Json& c) { c["head_dim"] = 31; });
  expect_refusal("qwen3", "'num_key_value_heads' is missing",
                 [](Json& c) { c.erase("num_key_value_heads"); });
  expect_refusal("qwen3", "attention_bias: expected false, found true",
                 [](Json& c) { c["attention_bias"] = true; });
  expect_refusal("qwen3", "sliding_window: .*found -1", [](Json& c) {
    c["use_sliding_window"] = true;
    c["sliding_window"] = -1;
  });
}

TEST(GqaConfig, RefusalsOfRope) {
  expect_refusal("llama", "rope_scaling: type: expected .*found \"longrope\"",
                 [](Json& c) { c["rope_scaling"]["rope_type"] = "longrope"; });
  expect_refusal("llama", "'low_freq_factor' is missing",
                 [](Json& c) { c["rope_scaling"].erase("low_freq_factor"); });
  expect_refusal("llama", "expected 0 < low_freq_factor < high_freq_factor, found 4 and 4",
                 [](Json& c) { c["rope_scaling"]["low_freq_factor"] = 4; });
  expect_refusal("llama", "rope_scaling: factor: expected a number >= 1, found 0",
                 [](Json& c) { c["rope_scaling"]["factor"] = 0; });
  expect_refusal("llama", "partial_rotary_factor: expected 1, found 0.5",
                 [](Json& c) { c["partial_rotary_factor"] = 0.5; });
  expect_refusal("qwen3_moe", "expected mscale and mscale_all_dim, or neither",
                 [](Json& c) { c["rope_scaling"]["mscale"] = 1.0; });
  expect_refusal("qwen3_moe", "attention_factor: expected a positive number",
                 [](Json& c) { c["rope_scaling"]["attention_factor"] = 0; });
}

TEST(GqaConfig, RefusalsOfFeedForward) {
  expect_refusal("llama", "mlp_bias: expected false, found true",
                 [](Json& c) { c["mlp_bias"] = true; });
  expect_refusal("llama", "hidden_act: expected \"silu\", found \"gelu\"",
                 [](Json& c) { c["hidden_act"] = "gelu"; });
  expect_refusal("qwen3_moe", "num_experts_per_tok: expected an integer from 1 to 8, found 9",
                 [](Json& c) { c["num_experts_per_tok"] = 9; });
  expect_refusal("qwen3_moe", "mlp_only_layers.*expected an integer from 0 to 3, found 4",
                 [](Json& c) {
                   c["mlp_only_layers"] = {1, 4};
                 });
  expect_refusal("qwen3_moe", "mlp_only_layers: expected an array, found 3",
                 [](Json& c) { c["mlp_only_layers"] = 3; });
  expect_refusal("qwen3_moe", "decoder_sparse_step: expected an integer from 1 .*found 0",
                 [](Json& c) { c["decoder_sparse_step"] = 0; });
  expect_refusal("qwen3_moe", "num_local_experts' is missing",
                 [](Json& c) { c.erase("num_experts"); });
}

TEST(GqaTensors, TableNamesEveryTensorOfTheCheckpointOnce) {
  for (const char* family : {"llama", "qwen3", "qwen3_moe"}) {
    SCOPED_TRACE(family);
    expect_table_of_all_tensors(Checkpoint::open(folder_of(family)));
  }
}

}  // namespace
}  // namespace blockptq
