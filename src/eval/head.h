// What an evaluation measures at the output head, whose vocabulary is read tile by tile: logits of
// the whole vocabulary never exist at once.
//
// Shapes: N tokens, D hidden, V ids of a tile.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/cross_entropy.h"

namespace blockptq {

/// Next-token losses, and the divergence from a reference, summed up over tiles of the vocabulary.
class HeadMeasure {
 public:
  /// targets_N: int32; -1: none, its loss is 0.
  explicit HeadMeasure(at::Tensor targets_N);

  /// The next tile. states_ND: normalised; head_VD: the tile's rows.
  void add(const at::Tensor& states_ND, const at::Tensor& head_VD);
  /// The same with the states and rows of the reference (on the same device).
  void add(const at::Tensor& states_ND, const at::Tensor& head_VD,
           const at::Tensor& reference_states_ND, const at::Tensor& reference_head_VD);

  /// Negative log-likelihood of the targets in nats, fp64 [N].
  at::Tensor losses() const;
  /// KL(reference || this) in nats, fp64 [N].
  at::Tensor divergence() const;
  /// Whether both put the same id first, bool [N].
  at::Tensor agreement() const;

 private:
  void add_losses(const at::Tensor& logits_NV, int64_t begin);
  void add_divergence(const at::Tensor& logits_NV, const at::Tensor& reference_NV, int64_t begin);

  at::Tensor targets_N_;
  int64_t first_ = 0;  ///< first id of the next tile
  std::vector<kernels::SoftmaxStats> stats_;
  std::vector<double> target_logits_;
  // Of the reference's softmax, running: maximum m, sum of exp(logit - m), and the sum of that
  // times (reference's logit - this logit).
  at::Tensor max_N_, sum_N_, gap_N_;
  at::Tensor top_N_, top_id_N_, reference_top_N_, reference_top_id_N_;
};

}  // namespace blockptq
