#include "models/gqa/tensors.h"

#include "models/decoder_layout.h"

namespace blockptq::gqa {
namespace {

void add_attention(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  UnitTable unit(table, config.model, Unit::attention, block_prefix(block), block);
  const nn::GqaSpec& gqa = config.attention;
  const int64_t q_dim = gqa.heads * gqa.head_dim;
  const int64_t kv_dim = gqa.kv_heads * gqa.head_dim;
  unit.add_stream_norm("input_layernorm.weight");
  unit.add_reader("self_attn.q_proj.weight", "attention.q_proj", q_dim);
  unit.add_reader("self_attn.k_proj.weight", "attention.k_proj", kv_dim);
  unit.add_reader("self_attn.v_proj.weight", "attention.v_proj", kv_dim);
  if (config.qk_norms) {
    unit.add_norm("self_attn.q_norm.weight", "norm", gqa.head_dim);
    unit.add_norm("self_attn.k_norm.weight", "norm", gqa.head_dim);
  }
  unit.add_writer("self_attn.o_proj.weight", "attention.o_proj", q_dim);
}

void add_feed_forward(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  UnitTable unit(table, config.model, Unit::feed_forward, block_prefix(block), block);
  unit.add_stream_norm("post_attention_layernorm.weight");
  if (!config.is_moe(block)) {
    unit.add_mlp("mlp.", "mlp", config.intermediate_size);
    return;
  }
  unit.add_reader("mlp.gate.weight", "router", config.routed_experts, /*keep_fp32=*/true);
  add_experts(table, config.model, block, config.routed_experts, config.moe_intermediate_size);
}

}  // namespace

std::vector<ModelTensor> tensor_table(const Config& config) {
  std::vector<ModelTensor> table;
  add_embedding(table, config.model);
  for (int64_t block = 0; block < config.model.blocks; ++block) {
    add_attention(table, config, block);
    add_feed_forward(table, config, block);
  }
  add_head(table, config.model);
  return table;
}

}  // namespace blockptq::gqa
