#include "models/deepseek/config.h"

#include "base/error.h"
#include "models/config_values.h"
#include "models/rope_config.h"

namespace blockptq::deepseek {
namespace {

void check_unsupported(const JsonView& json) {
  expect(json, "hidden_act", "silu");
  expect(json, "scoring_func", "sigmoid");
  expect(json, "topk_method", "noaux_tc");
  expect_false(json, "attention_bias");
}

nn::GroupLimitedRouter::Spec parse_router(const JsonView& json, int64_t experts) {
  nn::GroupLimitedRouter::Spec router;
  router.top_k = json.at("num_experts_per_tok").integer(1, experts);
  router.groups = json.integer_or("n_group", 1, 1, experts);
  router.top_groups = json.integer_or("topk_group", 1, 1, router.groups);
  router.normalize = json.boolean_or("norm_topk_prob", true);
  router.scaling = json.number_or("routed_scaling_factor", 1.0);
  check(experts % router.groups == 0,
        "{}: n_group: expected a divisor of n_routed_experts = {}, found {}", json.where(), experts,
        router.groups);
  const int64_t candidates = experts / router.groups * router.top_groups;
  check(router.top_k <= candidates,
        "{}: num_experts_per_tok: expected at most the {} experts of topk_group = {} groups, found "
        "{}",
        json.where(), candidates, router.top_groups, router.top_k);
  return router;
}

nn::MlaSpec parse_attention(const JsonView& json) {
  nn::MlaSpec mla;
  mla.heads = size(json, "num_attention_heads");
  mla.kv_lora_rank = size(json, "kv_lora_rank");
  mla.qk_nope_head_dim = size(json, "qk_nope_head_dim");
  mla.qk_rope_head_dim = size(json, "qk_rope_head_dim");
  mla.v_head_dim = size(json, "v_head_dim");
  check(mla.qk_rope_head_dim % 2 == 0, "{}: qk_rope_head_dim: expected an even number, found {}",
        json.where(), mla.qk_rope_head_dim);
  mla.rope = parse_rope(json, mla.qk_rope_head_dim);
  return mla;
}

nn::IndexerSpec parse_indexer(const JsonView& json, const nn::MlaSpec& mla) {
  nn::IndexerSpec indexer;
  indexer.heads = size(json, "index_n_heads");
  indexer.head_dim = json.at("index_head_dim").integer(mla.qk_rope_head_dim, kMaxSize);
  indexer.rope_dim = mla.qk_rope_head_dim;
  indexer.top_k = size(json, "index_topk");
  return indexer;
}

}  // namespace

bool Config::is_moe(int64_t block) const {
  // MTP layers are MoE blocks whatever the pattern says.
  return block >= model.blocks ||
         (routed_experts > 0 && block >= first_moe_block && block % moe_block_step == 0);
}

Config parse_config(const JsonView& json) {
  check_unsupported(json);
  Config config;
  config.model = parse_model_spec(json);
  config.model.mtp_layers = json.integer_or("num_nextn_predict_layers", 0, 0, 1);
  config.q_lora_rank = size(json, "q_lora_rank");
  config.attention = parse_attention(json);
  if (json.find("index_topk")) {
    config.indexer = parse_indexer(json, config.attention);
  }
  config.intermediate_size = size(json, "intermediate_size");
  config.moe_intermediate_size = size(json, "moe_intermediate_size");
  config.routed_experts = size(json, "n_routed_experts");
  config.shared_experts = json.integer_or("n_shared_experts", 0, 0, 1024);
  config.first_moe_block = json.integer_or("first_k_dense_replace", 0, 0, config.model.blocks);
  config.moe_block_step = json.integer_or("moe_layer_freq", 1, 1, config.model.blocks);
  config.router = parse_router(json, config.routed_experts);
  config.model.expert_share =
      static_cast<double>(config.router.top_k) / static_cast<double>(config.routed_experts);
  return config;
}

}  // namespace blockptq::deepseek
