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

UnitTable::UnitTable(std::vector<ModelTensor>& table, Unit unit, std::string prefix, int64_t block,
                     int64_t expert)
    : table_(table), unit_(unit), prefix_(std::move(prefix)), block_(block), expert_(expert) {}

void UnitTable::add(const std::string& name, const std::string& role, std::vector<int64_t> shape,
                    bool keep_fp32) {
  table_.push_back({prefix_ + name, role, std::move(shape), unit_, block_, expert_, keep_fp32});
}

void UnitTable::add_norm(const std::string& name, const std::string& role, int64_t size) {
  add(name, role, {size}, /*keep_fp32=*/true);
}

void UnitTable::add_mlp(const std::string& prefix, const std::string& role, int64_t hidden,
                        int64_t intermediate) {
  add(prefix + "gate_proj.weight", role + ".gate_proj", {intermediate, hidden});
  add(prefix + "up_proj.weight", role + ".up_proj", {intermediate, hidden});
  add(prefix + "down_proj.weight", role + ".down_proj", {hidden, intermediate});
}

void add_embedding(std::vector<ModelTensor>& table, const ModelSpec& model) {
  UnitTable(table, Unit::embedding, "model.")
      .add("embed_tokens.weight", "embedding", {model.vocab_size, model.hidden_size});
}

void add_experts(std::vector<ModelTensor>& table, const ModelSpec& model, int64_t block,
                 int64_t experts, int64_t intermediate) {
  for (int64_t expert = 0; expert < experts; ++expert) {
    UnitTable(table, Unit::expert, expert_prefix(block, expert), block, expert)
        .add_mlp("", "expert", model.hidden_size, intermediate);
  }
}

void add_head(std::vector<ModelTensor>& table, const ModelSpec& model, bool tied_embeddings) {
  UnitTable head(table, Unit::head, "");
  head.add_norm("model.norm.weight", "norm", model.hidden_size);
  if (!tied_embeddings) {
    head.add("lm_head.weight", "lm_head", {model.vocab_size, model.hidden_size});
  }
}

nn::Mlp mlp_of(const Piece& piece, const std::string& prefix) {
  return {piece.weight(prefix + "gate_proj.weight"), piece.weight(prefix + "up_proj.weight"),
          piece.weight(prefix + "down_proj.weight")};
}

}  // namespace blockptq
