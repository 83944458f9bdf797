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

constexpr const char* kFinalNorm = "model.norm.weight";

std::string block_prefix(int64_t block);                   ///< "model.layers.3."
std::string expert_prefix(int64_t block, int64_t expert);  ///< "model.layers.3.mlp.experts.7."
std::string feed_forward_norm(int64_t block);              ///< the norm in front of a block's MLPs

/// Adds the tensors of one unit to a table, their names behind `prefix`.
class UnitTable {
 public:
  UnitTable(std::vector<ModelTensor>& table, const ModelSpec& model, Unit unit, std::string prefix,
            int64_t block = -1, int64_t expert = -1);

  /// A tensor that does not touch the residual stream, unless what is returned is made to.
  ModelTensor& add(const std::string& name, const std::string& role, std::vector<int64_t> shape,
                   bool keep_fp32 = false);
  /// Norms and biases are used in fp32.
  void add_norm(const std::string& name, const std::string& role, int64_t size);
  /// A norm of the residual stream, through which the readers that follow see it.
  void add_stream_norm(const std::string& name);
  /// The readers that follow see the stream through a norm of another unit.
  void read_through(const std::string& whole_name) { norm_ = whole_name; }
  /// [outputs, hidden]: reads the residual stream.
  ModelTensor& add_reader(const std::string& name, const std::string& role, int64_t outputs,
                          bool keep_fp32 = false);
  /// [hidden, inputs]: adds to the residual stream.
  void add_writer(const std::string& name, const std::string& role, int64_t inputs);
  /// [vocab, hidden]: rows of the residual stream.
  void add_embedding();
  /// [vocab, hidden]: an output head.
  ModelTensor& add_head(const std::string& name);
  /// Roles `role`.gate_proj, .up_proj (readers), .down_proj (a writer).
  void add_mlp(const std::string& prefix, const std::string& role, int64_t intermediate);

 private:
  std::vector<ModelTensor>& table_;
  const ModelSpec& model_;
  Unit unit_;
  std::string prefix_;
  int64_t block_;
  int64_t expert_;
  std::string norm_;  ///< of what reads the stream
};

void add_embedding(std::vector<ModelTensor>& table, const ModelSpec& model);
/// The routed experts of a block.
void add_experts(std::vector<ModelTensor>& table, const ModelSpec& model, int64_t block,
                 int64_t experts, int64_t intermediate);
/// The final norm and, unless it is tied to the embedding, the output head.
void add_head(std::vector<ModelTensor>& table, const ModelSpec& model);

/// The MLP whose tensors `UnitTable::add_mlp` added under the same (whole) prefix.
nn::Mlp mlp_of(const Piece& piece, const std::string& prefix);

}  // namespace blockptq
