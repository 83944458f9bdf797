// Next-token losses from final hidden states, over a vocabulary that is read tile by tile: logits
// of the whole vocabulary never exist at once.
//
// Shapes: C sequences, L tokens of each, N = C * L, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/piece.h"

namespace blockptq {

/// Negative log-likelihood in nats of targets_N (int32; -1: none, its result is 0) under the logits
/// of the `pieces` next pieces of `stream`: consecutive row tiles of one output head. states_ND:
/// normalised. Result fp64 [N].
at::Tensor target_losses(PieceStream& stream, int64_t pieces, const at::Tensor& states_ND,
                         const at::Tensor& targets_N);

}  // namespace blockptq
