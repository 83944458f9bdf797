#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "models/deepseek/config.h"
#include "models/families.h"
#include "models/test_support.h"

namespace blockptq {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / "models/tiny-v32-fp8";

Json shipped_config() {
  const auto path = kModel / "config.json";
  return parse_json(read_file(path), path.string());
}

/// The message with which a changed config.json is refused; empty when it is taken.
std::string refusal(const std::function<void(Json&)>& change) {
  Json config = shipped_config();
  change(config);
  try {
    make_model({config, "config.json"});
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(DeepSeekConfig, TakesTheShippedOne) {
  EXPECT_EQ(refusal([](Json&) {}), "");
  const Json config = shipped_config();
  const auto parsed = deepseek::parse_config({config, "config.json"});
  EXPECT_FALSE(parsed.is_moe(1));
  EXPECT_TRUE(parsed.is_moe(2));
  EXPECT_TRUE(parsed.is_moe(parsed.model.blocks));
  EXPECT_EQ(parsed.indexer->top_k, 256);
}

TEST(DeepSeekConfig, RefusalsNameKeyExpectedAndFound) {
  using testing::internal::RE;
  const auto expect = [](const char* pattern, const std::function<void(Json&)>& change) {
    EXPECT_TRUE(RE::PartialMatch(refusal(change), RE(pattern)))
        << pattern << " <- " << refusal(change);
  };
  expect("unknown model_type 'gpt2'.*deepseek_v32", [](Json& c) { c["model_type"] = "gpt2"; });
  expect("model_type: expected a string", [](Json& c) { c["model_type"] = 3; });
  expect("'hidden_size' is missing", [](Json& c) { c.erase("hidden_size"); });
  expect("hidden_size: expected an integer from 1 to .*found 0",
         [](Json& c) { c["hidden_size"] = 0; });
  expect("hidden_size: .*found -4", [](Json& c) { c["hidden_size"] = -4; });
  expect("hidden_size: .*found \"256\"", [](Json& c) { c["hidden_size"] = "256"; });
  expect("hidden_size: .*found 2.5", [](Json& c) { c["hidden_size"] = 2.5; });
  expect("vocab_size: .*found 1e", [](Json& c) { c["vocab_size"] = 1e30; });
  expect("num_hidden_layers", [](Json& c) { c["num_hidden_layers"] = int64_t{1} << 62; });
  expect("num_experts_per_tok: expected an integer from 1 to 16, found 17",
         [](Json& c) { c["num_experts_per_tok"] = 17; });
  expect("num_experts_per_tok: expected at most the 8 experts",
         [](Json& c) { c["num_experts_per_tok"] = 9; });
  expect("n_group: expected a divisor", [](Json& c) { c["n_group"] = 3; });
  expect("topk_group: expected an integer from 1 to 4, found 5",
         [](Json& c) { c["topk_group"] = 5; });
  expect("qk_rope_head_dim: expected an even number", [](Json& c) { c["qk_rope_head_dim"] = 31; });
  expect("index_head_dim: expected an integer >= 32|index_head_dim: expected an integer from 32",
         [](Json& c) { c["index_head_dim"] = 16; });
  expect("scoring_func: expected \"sigmoid\", found \"softmax\"",
         [](Json& c) { c["scoring_func"] = "softmax"; });
  expect("hidden_act", [](Json& c) { c["hidden_act"] = "gelu"; });
  expect("rope_scaling: type: expected .*found \"linear\"",
         [](Json& c) { c["rope_scaling"]["type"] = "linear"; });
  expect("factor: expected a positive number", [](Json& c) { c["rope_scaling"]["factor"] = 0; });
}

TEST(DeepSeekConfig, BothSpellingsOfRope) {
  Json config = shipped_config();
  Json parameters = config["rope_scaling"];
  parameters["rope_theta"] = config["rope_theta"];
  parameters["rope_type"] = parameters["type"];
  const auto official = deepseek::parse_config({config, "config.json"});
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config["rope_parameters"] = parameters;
  const auto transformers5 = deepseek::parse_config({config, "config.json"});
  EXPECT_EQ(official.attention.rope.theta, transformers5.attention.rope.theta);
  EXPECT_EQ(official.attention.rope.yarn->factor, transformers5.attention.rope.yarn->factor);
  EXPECT_EQ(official.attention.rope.softmax_factor(),
            transformers5.attention.rope.softmax_factor());
}

TEST(DeepSeekTensors, TableNamesEveryTensorOfTheCheckpointOnce) {
  expect_table_of_all_tensors(Checkpoint::open(kModel));
}

TEST(DeepSeekTensors, WithoutIndexerForV3) {
  Json config = shipped_config();
  config["model_type"] = "deepseek_v3";
  config.erase("index_topk");
  for (const ModelTensor& tensor : make_model({config, "config.json"})->tensors()) {
    EXPECT_EQ(tensor.name.find("indexer"), std::string::npos);
  }
}

}  // namespace
}  // namespace blockptq
