// Names, roles and shapes that the checkpoints of all families here have in common: those of
// Hugging Face's decoders.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.h"
#include "nn/mlp.h"

namespace blockptq {

class Piece;

std::string block_prefix(int64_t block);                   ///< "model.layers.3."
std::string expert_prefix(int64_t block, int64_t expert);  ///< "model.layers.3.mlp.experts.7."

/// Adds the tensors of one unit to a table, their names behind `prefix`.
class UnitTable {
 public:
  UnitTable(std::vector<ModelTensor>& table, Unit unit, std::string prefix, int64_t block = -1,
            int64_t expert = -1);

  void add(const std::string& name, const std::string& role, std::vector<int64_t> shape,
           bool keep_fp32 = false);
  /// Norms and biases are used in fp32.
  void add_norm(const std::string& name, const std::string& role, int64_t size);
  /// Roles `role`.gate_proj, .up_proj, .down_proj.
  void add_mlp(const std::string& prefix, const std::string& role, int64_t hidden,
               int64_t intermediate);

 private:
  std::vector<ModelTensor>& table_;
  Unit unit_;
  std::string prefix_;
  int64_t block_;
  int64_t expert_;
};

void add_embedding(std::vector<ModelTensor>& table, const ModelSpec& model);
/// The routed experts of a block.
void add_experts(std::vector<ModelTensor>& table, const ModelSpec& model, int64_t block,
                 int64_t experts, int64_t intermediate);
/// The final norm and, unless it is tied to the embedding, the output head.
void add_head(std::vector<ModelTensor>& table, const ModelSpec& model, bool tied_embeddings);

/// The MLP whose tensors `UnitTable::add_mlp` added under the same (whole) prefix.
nn::Mlp mlp_of(const Piece& piece, const std::string& prefix);

}  // namespace blockptq
