// One model on its way over a text, block by block: the states of all sequences and the stream of
// the weights that come next.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ranks.h"
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
  bool logits = true;  ///< with the matrices of the output heads
};

struct PassOptions {
  at::ScalarType type = at::kBFloat16;  ///< compute type
  at::Device device = at::kCPU;
  nn::AttentionOptions attention;
  Channel weights = Channel::weights;  ///< of passes that run side by side, each its own
};

class ModelPass {
 public:
  /// Begins to read. `states` enter route.begin; undefined: the embeddings of the windows, which
  /// are this rank's.
  ModelPass(const Subject& subject, const TokenWindows& windows, const Route& route,
            const PassOptions& options, at::Tensor states_CLD, Ranks& ranks = alone());

  const at::Tensor& states() const { return states_CLD_; }

  void run_block(int64_t block, const BlockRunner::OnStep& on_step);
  /// Replaces the states by those normalised in front of the head of `unit`, whose tiles are next.
  void normalize();
  Piece next_head_tile() { return stream_->next(); }
  /// Replaces the final states by what enters the MTP layer.
  void enter_mtp();

 private:
  const Subject& subject_;
  const TokenWindows& windows_;
  PassOptions options_;
  Ranks& ranks_;
  std::vector<ModelTensor> table_;
  PieceLoader loader_;
  std::unique_ptr<PieceStream> stream_;
  at::Tensor states_CLD_;
};

/// The pieces of `route`, in the order of reading.
std::vector<PieceSpec> route_pieces(const Model& model, const Route& route, at::ScalarType type);
/// Tiles of the head of `unit` among them.
int64_t head_tiles(const Model& model, Unit unit, at::ScalarType type);
/// Bytes that the pieces have in the checkpoint.
int64_t stored_bytes(const Checkpoint& checkpoint, const std::vector<PieceSpec>& pieces);
/// Tokens that feed-forward work is done on at a time.
int64_t expert_slice_tokens(const ModelSpec& spec, int64_t workspace_bytes);

/// The token behind each, which an MTP layer sees. The last position has none; it is filled with
/// the first, and being last, no other position sees it.
std::vector<int32_t> next_tokens(const TokenWindows& windows);

/// The windows of the `index`-th of `parts` ranks, a range.
TokenWindows part_of(const TokenWindows& windows, int index, int parts);

/// The token `shift` ahead of each, -1 where there is none: int32 [C * L].
at::Tensor target_tokens(const TokenWindows& windows, int64_t shift);
/// exp of the mean over sequences of the mean loss of each; losses_N: [C * L], of targets `shift`
/// ahead.
double perplexity(const at::Tensor& losses_N, const TokenWindows& windows, int64_t shift);

}  // namespace blockptq
