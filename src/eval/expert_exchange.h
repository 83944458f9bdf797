// Tokens on their way to the ranks that hold their experts, and what the experts make of them on
// the way back.
//
// Expert e is held by rank e mod size. Its rows come together in the order of the ranks, which is
// that of the tokens of the whole text, and every rank adds the outputs that it gets back in the
// order of the experts: the sums are those of one rank, to the bit.
//
// Shapes: T tokens, D hidden, E experts.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "base/ranks.h"

namespace blockptq {

struct ExpertWork {
  /// This rank's tokens of `expert`, [counts[expert], D].
  std::function<at::Tensor(int64_t expert)> tokens;
  /// What an expert of this rank makes of the tokens of all ranks; called for each of them, in
  /// order.
  std::function<at::Tensor(int64_t expert, const at::Tensor& x_TD)> forward;
  /// Takes the outputs of this rank's tokens; called for every expert, in order.
  std::function<void(int64_t expert, const at::Tensor& y_TD)> take;
};

/// Rows of a round for a rank of `tokens` tokens: so many are on their way to and from it at a
/// time.
constexpr int64_t exchanged_rows(int64_t tokens) {
  return 2 * tokens;
}

/// counts_E: tokens of this rank for each expert. Experts go in rounds, such that a rank's own
/// tokens of a round and the others' that come to it are about `max_rows` (the same on every rank)
/// rows each at most.
void exchange_experts(Ranks& ranks, const std::vector<int64_t>& counts_E, int64_t hidden,
                      int64_t max_rows, const at::TensorOptions& states, const ExpertWork& work);

}  // namespace blockptq
