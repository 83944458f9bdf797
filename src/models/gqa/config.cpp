#include "models/gqa/config.h"

#include <algorithm>

#include "base/error.h"
#include "models/config_values.h"
#include "models/rope_config.h"

namespace blockptq::gqa {
namespace {

constexpr int64_t kQwen3HeadDim = 128;  // where config.json of a dense Qwen3 does not say

nn::GqaSpec parse_attention(const JsonView& json, int64_t kv_heads, int64_t head_dim) {
  nn::GqaSpec gqa;
  gqa.heads = size(json, "num_attention_heads");
  gqa.kv_heads = kv_heads;
  gqa.head_dim = head_dim;
  check(gqa.heads % kv_heads == 0,
        "{}: num_key_value_heads: expected a divisor of num_attention_heads = {}, found {}",
        json.where(), gqa.heads, kv_heads);
  check(head_dim % 2 == 0, "{}: head_dim: expected an even number, found {}", json.where(),
        head_dim);
  gqa.rope = parse_rope(json, head_dim);
  return gqa;
}

/// head_dim, or the hidden size shared out among the heads.
int64_t head_dim_or_share(const JsonView& json) {
  if (json.find("head_dim")) {
    return size(json, "head_dim");
  }
  const int64_t hidden = size(json, "hidden_size");
  const int64_t heads = size(json, "num_attention_heads");
  check(hidden % heads == 0,
        "{}: num_attention_heads: expected a divisor of hidden_size = {} where head_dim is not "
        "given, found {}",
        json.where(), hidden, heads);
  return hidden / heads;
}

/// What the three families have in common.
Config parse_common(const JsonView& json, int64_t kv_heads, int64_t head_dim) {
  expect(json, "hidden_act", "silu");
  expect_false(json, "attention_bias");
  expect_false(json, "mlp_bias");
  Config config;
  config.model = parse_model_spec(json);
  config.attention = parse_attention(json, kv_heads, head_dim);
  config.attention.norm_eps = config.model.rms_norm_eps;
  config.intermediate_size = size(json, "intermediate_size");
  return config;
}

Config parse_qwen(const JsonView& json, int64_t head_dim) {
  Config config = parse_common(json, size(json, "num_key_value_heads"), head_dim);
  config.qk_norms = true;
  if (json.boolean_or("use_sliding_window", false) && json.find("sliding_window")) {
    config.attention.max_tokens = size(json, "sliding_window");
  }
  return config;
}

std::vector<int64_t> parse_blocks(const JsonView& list, int64_t blocks) {
  std::vector<int64_t> result;
  list.expect_array();
  for (size_t i = 0; i < list.size(); ++i) {
    result.push_back(list.at(i).integer(0, blocks - 1));
  }
  return result;
}

}  // namespace

bool Config::is_moe(int64_t block) const {
  return routed_experts > 0 && (block + 1) % sparse_step == 0 &&
         std::find(dense_blocks.begin(), dense_blocks.end(), block) == dense_blocks.end();
}

Config parse_llama(const JsonView& json) {
  const int64_t kv_heads = size_or(json, "num_key_value_heads", size(json, "num_attention_heads"));
  return parse_common(json, kv_heads, head_dim_or_share(json));
}

Config parse_qwen3(const JsonView& json) {
  return parse_qwen(json, size_or(json, "head_dim", kQwen3HeadDim));
}

Config parse_qwen3_moe(const JsonView& json) {
  Config config = parse_qwen(json, head_dim_or_share(json));
  config.routed_experts =
      size(json, json.find("num_experts") ? "num_experts" : "num_local_experts");
  config.moe_intermediate_size = size(json, "moe_intermediate_size");
  config.sparse_step = size_or(json, "decoder_sparse_step", 1);
  if (const auto list = json.find("mlp_only_layers")) {
    config.dense_blocks = parse_blocks(*list, config.model.blocks);
  }
  config.router.top_k = json.at("num_experts_per_tok").integer(1, config.routed_experts);
  config.router.normalize = json.boolean_or("norm_topk_prob", false);
  config.model.expert_share =
      static_cast<double>(config.router.top_k) / static_cast<double>(config.routed_experts);
  return config;
}

}  // namespace blockptq::gqa
