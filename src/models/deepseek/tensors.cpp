#include "models/deepseek/tensors.h"

#include "models/decoder_layout.h"

namespace blockptq::deepseek {
namespace {

void add_attention(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  UnitTable unit(table, config.model, Unit::attention, block_prefix(block), block);
  const nn::MlaSpec& mla = config.attention;
  const int64_t q_dim = mla.heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
  const int64_t kv_dim = mla.heads * (mla.qk_nope_head_dim + mla.v_head_dim);
  unit.add_stream_norm("input_layernorm.weight");
  unit.add_reader("self_attn.q_a_proj.weight", "attention.q_a_proj", config.q_lora_rank);
  unit.add_norm("self_attn.q_a_layernorm.weight", "norm", config.q_lora_rank);
  unit.add("self_attn.q_b_proj.weight", "attention.q_b_proj", {q_dim, config.q_lora_rank});
  unit.add_reader("self_attn.kv_a_proj_with_mqa.weight", "attention.kv_a_proj_with_mqa",
                  mla.kv_lora_rank + mla.qk_rope_head_dim);
  unit.add_norm("self_attn.kv_a_layernorm.weight", "norm", mla.kv_lora_rank);
  unit.add("self_attn.kv_b_proj.weight", "attention.kv_b_proj", {kv_dim, mla.kv_lora_rank});
  unit.add_writer("self_attn.o_proj.weight", "attention.o_proj", mla.heads * mla.v_head_dim);
  if (config.indexer) {
    const nn::IndexerSpec& indexer = *config.indexer;
    unit.add("self_attn.indexer.wq_b.weight", "indexer.wq_b",
             {indexer.heads * indexer.head_dim, config.q_lora_rank});
    unit.add_reader("self_attn.indexer.wk.weight", "indexer.wk", indexer.head_dim);
    unit.add_norm("self_attn.indexer.k_norm.weight", "norm", indexer.head_dim);
    unit.add_norm("self_attn.indexer.k_norm.bias", "norm", indexer.head_dim);
    unit.add_reader("self_attn.indexer.weights_proj.weight", "indexer.weights_proj", indexer.heads,
                    /*keep_fp32=*/true);
  }
}

void add_feed_forward(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  UnitTable unit(table, config.model, Unit::feed_forward, block_prefix(block), block);
  unit.add_stream_norm("post_attention_layernorm.weight");
  if (!config.is_moe(block)) {
    unit.add_mlp("mlp.", "mlp", config.intermediate_size);
    return;
  }
  unit.add_reader("mlp.gate.weight", "router", config.routed_experts, /*keep_fp32=*/true);
  unit.add("mlp.gate.e_score_correction_bias", "router.bias", {config.routed_experts}, true);
  if (config.shared_experts > 0) {
    unit.add_mlp("mlp.shared_experts.", "shared_expert",
                 config.moe_intermediate_size * config.shared_experts);
  }
}

void add_block(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  add_attention(table, config, block);
  add_feed_forward(table, config, block);
  if (config.is_moe(block)) {
    add_experts(table, config.model, block, config.routed_experts, config.moe_intermediate_size);
  }
}

void add_mtp_ends(std::vector<ModelTensor>& table, const Config& config, int64_t block) {
  const int64_t hidden = config.model.hidden_size;
  const std::string prefix = block_prefix(block);
  UnitTable input(table, config.model, Unit::mtp_input, prefix, block);
  input.add_embedding();
  input.add_stream_norm("enorm.weight");
  input.add("hnorm.weight", "norm", {hidden}, /*keep_fp32=*/true).reads = {kFinalNorm};
  ModelTensor& projection = input.add("eh_proj.weight", "mtp.eh_proj", {hidden, 2 * hidden});
  projection.reads = {prefix + "enorm.weight", prefix + "hnorm.weight"};
  projection.writes = true;
  UnitTable head(table, config.model, Unit::mtp_head, prefix, block);
  head.add_stream_norm("shared_head.norm.weight");
  head.add_head("shared_head.head.weight");
}

}  // namespace

std::vector<ModelTensor> tensor_table(const Config& config) {
  std::vector<ModelTensor> table;
  const ModelSpec& model = config.model;
  add_embedding(table, model);
  for (int64_t block = 0; block < model.blocks; ++block) {
    add_block(table, config, block);
  }
  add_head(table, model);
  for (int64_t block = model.blocks; block < model.blocks + model.mtp_layers; ++block) {
    add_block(table, config, block);
    add_mtp_ends(table, config, block);
  }
  return table;
}

}  // namespace blockptq::deepseek
