// Memory that a pass over a text takes beside its states and its weights, estimated from the shapes
// of the tensors before it starts. tests/test_memory.py compares with what the kernel counts.
#pragma once

#include <cstdint>

#include "models/piece.h"

namespace blockptq {

/// What passes through a model.
struct PassShape {
  int64_t seq_len = 0;
  int64_t tokens = 0;           ///< of all sequences of this rank
  int64_t slice_tokens = 0;     ///< that MLPs work on at a time
  int64_t element_bytes = 0;    ///< of the compute type
  int64_t workspace_bytes = 0;  ///< bound of attention's temporaries
  bool compared = false;        ///< logits of two models at a time
};

/// The resident set of now, and what the libraries add to it once they compute.
int64_t program_bytes();

/// Elements of the largest matrix of `piece`.
int64_t largest_matrix(const PieceSpec& piece);
/// Bytes of what comes and goes while `piece` computes.
int64_t temporary_bytes(const PieceSpec& piece, const PassShape& shape);

}  // namespace blockptq
