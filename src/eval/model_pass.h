// One model on its way over a text, block by block: the states of all sequences and the stream of
// the weights that come next.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "eval/arithmetic.h"
#include "eval/block_runner.h"
#include "models/model.h"
#include "models/piece.h"
#include "text/windows.h"

namespace blockptq {

/// A model and how it computes; all outlive the evaluation.
struct Subject {
  const Checkpoint& checkpoint;
  const Model& model;
  Arithmetic arithmetic;
};

/// What of a model is run.
struct Route {
  int64_t begin = 0;  ///< blocks [begin, end), MTP layers counted after the last
  int64_t end = 0;
  bool head = false;  ///< the run reaches the end of the model
  bool mtp = false;
};

struct PassOptions {
  at::ScalarType type = at::kBFloat16;  ///< compute type
  at::Device device = at::kCPU;
  nn::AttentionOptions attention;
};

class ModelPass {
 public:
  /// Begins to read. `states` enter route.begin; undefined: the embeddings of the windows.
  ModelPass(const Subject& subject, const TokenWindows& windows, const Route& route,
            const PassOptions& options, at::Tensor states_CLD);

  const at::Tensor& states() const { return states_CLD_; }

  void run_block(int64_t block, const BlockRunner::OnStep& on_step);
  /// Replaces the states by those normalised in front of the head of `unit`, whose tiles are next.
  void normalize();
  /// Tiles of the head of `unit`.
  int64_t head_tiles(Unit unit) const;
  Piece next_head_tile() { return stream_->next(); }
  /// Replaces the final states by what enters the MTP layer. The last position has no next token;
  /// it is filled with the first, and being last, no other position sees it.
  void enter_mtp();

 private:
  const Subject& subject_;
  const TokenWindows& windows_;
  PassOptions options_;
  std::vector<ModelTensor> table_;
  PieceLoader loader_;
  std::unique_ptr<PieceStream> stream_;
  at::Tensor states_CLD_;
};

/// The pieces of `route`, in the order of reading.
std::vector<PieceSpec> route_pieces(const Model& model, const Route& route, at::ScalarType type);

}  // namespace blockptq
