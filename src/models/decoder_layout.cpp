#include "models/decoder_layout.h"

#include <fmt/format.h>

#include <utility>

#include "models/piece.h"

namespace blockptq {

std::string block_prefix(int64_t block) {
  return fmt::format("model.layers.{}.", block);
}

std::string expert_prefix(int64_t block, int64_t expert) {
  return fmt::format("model.layers.{}.mlp.experts.{}.", block, expert);
}

std::string feed_forward_norm(int64_t block) {
  return block_prefix(block) + "post_attention_layernorm.weight";
}

UnitTable::UnitTable(std::vector<ModelTensor>& table, const ModelSpec& model, Unit unit,
                     std::string prefix, int64_t block, int64_t expert)
    : table_(table),
      model_(model),
      unit_(unit),
      prefix_(std::move(prefix)),
      block_(block),
      expert_(expert) {}

ModelTensor& UnitTable::add(const std::string& name, const std::string& role,
                            std::vector<int64_t> shape, bool keep_fp32) {
  return table_.emplace_back(
      ModelTensor{prefix_ + name, role, std::move(shape), unit_, block_, expert_, keep_fp32});
}

void UnitTable::add_norm(const std::string& name, const std::string& role, int64_t size) {
  add(name, role, {size}, /*keep_fp32=*/true);
}

void UnitTable::add_stream_norm(const std::string& name) {
  add_norm(name, "norm", model_.hidden_size);
  read_through(prefix_ + name);
}

ModelTensor& UnitTable::add_reader(const std::string& name, const std::string& role,
                                   int64_t outputs, bool keep_fp32) {
  ModelTensor& tensor = add(name, role, {outputs, model_.hidden_size}, keep_fp32);
  tensor.reads = {norm_};
  return tensor;
}

void UnitTable::add_writer(const std::string& name, const std::string& role, int64_t inputs) {
  add(name, role, {model_.hidden_size, inputs}).writes = true;
}

void UnitTable::add_embedding() {
  add("embed_tokens.weight", "embedding", {model_.vocab_size, model_.hidden_size}).reads = {
      kNoNorm};
}

ModelTensor& UnitTable::add_head(const std::string& name) {
  return add_reader(name, "lm_head", model_.vocab_size);
}

void UnitTable::add_mlp(const std::string& prefix, const std::string& role, int64_t intermediate) {
  add_reader(prefix + "gate_proj.weight", role + ".gate_proj", intermediate);
  add_reader(prefix + "up_proj.weight", role + ".up_proj", intermediate);
  add_writer(prefix + "down_proj.weight", role + ".down_proj", intermediate);
}

void add_embedding(std::vector<ModelTensor>& table, const ModelSpec& model) {
  UnitTable(table, model, Unit::embedding, "model.").add_embedding();
}

void add_experts(std::vector<ModelTensor>& table, const ModelSpec& model, int64_t block,
                 int64_t experts, int64_t intermediate) {
  for (int64_t expert = 0; expert < experts; ++expert) {
    UnitTable unit(table, model, Unit::expert, expert_prefix(block, expert), block, expert);
    unit.read_through(feed_forward_norm(block));
    unit.add_mlp("", "expert", intermediate);
  }
}

void add_head(std::vector<ModelTensor>& table, const ModelSpec& model) {
  UnitTable head(table, model, Unit::head, "");
  head.add_stream_norm(kFinalNorm);
  if (model.head != Head::tied) {
    ModelTensor& matrix = head.add_head("lm_head.weight");
    matrix.stored_as = model.head == Head::untied ? "model.embed_tokens.weight" : "";
  }
}

nn::Mlp mlp_of(const Piece& piece, const std::string& prefix) {
  return {piece.weight(prefix + "gate_proj.weight"), piece.weight(prefix + "up_proj.weight"),
          piece.weight(prefix + "down_proj.weight")};
}

}  // namespace blockptq
