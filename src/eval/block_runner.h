// One block over all sequences: attention sequence by sequence, then the feed-forward half with
// each expert loaded once and fed only the tokens routed to it.
//
// Shapes: C sequences, L tokens of each, N = C * L, D hidden, K experts per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/ranks.h"
#include "exec/exec.h"
#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"

namespace blockptq {

/// The tokens of each expert in their order: rows [offsets[e], offsets[e + 1]) of `tokens` and
/// `weights`.
struct Dispatch {
  at::Tensor tokens;   ///< int64 [N * K]
  at::Tensor weights;  ///< fp32 [N * K]
  std::vector<int64_t> offsets;

  int64_t count(int64_t expert) const { return offsets[expert + 1] - offsets[expert]; }
};

class BlockRunner {
 public:
  /// Called after each finished part of a block with what was done, e.g. "expert 17/256".
  using OnStep = std::function<void(const std::string& detail)>;

  /// Feed-forward work is done on at most `slice_tokens` tokens at a time. Each of the `ranks` has
  /// sequences of its own and the experts that `stream` has for it.
  BlockRunner(const Model& model, const Exec& exec, nn::AttentionOptions attention,
              int64_t slice_tokens, OnStep on_step, Ranks& ranks = alone());

  /// Passes states_CLD (contiguous, changed in place) through `block`, whose pieces are next in
  /// `stream`.
  void run(PieceStream& stream, int64_t block, at::Tensor& states_CLD) const;

 private:
  void run_attention(PieceStream& stream, int64_t block, at::Tensor& states_CLD) const;
  void run_feed_forward(PieceStream& stream, int64_t block, const at::Tensor& states_ND) const;
  void run_experts(PieceStream& stream, int64_t block, const at::Tensor& states_ND,
                   const at::Tensor& norm_D, const at::Tensor& experts_NK,
                   const at::Tensor& weights_NK, at::Tensor& out_ND) const;
  void share_experts(PieceStream& stream, int64_t block, const at::Tensor& states_ND,
                     const at::Tensor& norm_D, const Dispatch& dispatch, at::Tensor& out_ND) const;

  const Model& model_;
  const Exec& exec_;
  nn::AttentionOptions attention_;
  int64_t slice_tokens_;
  OnStep on_step_;
  Ranks& ranks_;
};

}  // namespace blockptq
