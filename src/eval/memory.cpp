#include "eval/memory.h"

#include <algorithm>

#include "base/system.h"
#include "nn/attend.h"

namespace blockptq {
namespace {

constexpr int64_t kLibraries = int64_t{32} << 20;  // code, packed operands, thread stacks
constexpr int64_t kLogitTokens = 1024;             // of eval/head.cpp
constexpr int64_t kComparedTokens = 128;

int64_t rows(const TensorSlice& slice) {
  return (slice.row_end < 0 ? slice.spec.shape[0] : slice.row_end) - slice.row_begin;
}

/// T tokens, H: outputs of all linears but the last, V: inputs of the last, D hidden.
int64_t attention_bytes(const PieceSpec& piece, const PassShape& shape) {
  int64_t outputs = 0;
  int64_t values = 0;
  int64_t hidden = 0;
  bool indexer = false;
  for (const TensorSlice& slice : piece.tensors) {
    if (slice.spec.shape.size() != 2) {
      continue;
    }
    if (slice.spec.role.ends_with("o_proj")) {
      values = slice.spec.shape[1];
      hidden = slice.spec.shape[0];
    } else {
      outputs += slice.spec.shape[0];
      indexer = indexer || slice.spec.role.starts_with("indexer.");
    }
  }
  // Queries, keys and values as they come out of the linears, with heads in front, and rotated.
  const int64_t heads = 3 * shape.seq_len * outputs * shape.element_bytes;
  const int64_t selected = indexer ? 2 * shape.seq_len * shape.seq_len : 0;
  return std::min(heads, shape.workspace_bytes / 2) + 2 * nn::kScoreTileBytes + selected +
         shape.seq_len * (2 * values + 3 * hidden) * shape.element_bytes;
}

/// The hidden features and the inputs of a slice of tokens, each as is, as an operand, as a result.
int64_t mlp_bytes(const PieceSpec& piece, const PassShape& shape) {
  int64_t features = 0;
  for (const TensorSlice& slice : piece.tensors) {
    if (slice.spec.role.ends_with("down_proj")) {
      features = std::max(features, slice.spec.shape[0] + slice.spec.shape[1]);
    }
  }
  return 3 * std::min(shape.tokens, shape.slice_tokens) * features * shape.element_bytes;
}

/// Logits of a tile, and copies in fp32 where two models are compared.
int64_t head_bytes(const PieceSpec& piece, const PassShape& shape) {
  const int64_t ids = rows(piece.tensors.front());
  const int64_t logits = std::min(shape.tokens, kLogitTokens) * ids * shape.element_bytes;
  const int64_t copies = 5 * kComparedTokens * ids * int64_t{sizeof(float)};
  return shape.compared ? 2 * logits + copies : logits;
}

}  // namespace

int64_t program_bytes() {
  return rss_bytes() + kLibraries;
}

int64_t largest_matrix(const PieceSpec& piece) {
  int64_t largest = 0;
  for (const TensorSlice& slice : piece.tensors) {
    if (slice.spec.shape.size() == 2) {
      largest = std::max(largest, rows(slice) * slice.spec.shape[1]);
    }
  }
  return largest;
}

int64_t temporary_bytes(const PieceSpec& piece, const PassShape& shape) {
  // A product packs its weight first.
  const int64_t packed = largest_matrix(piece) * shape.element_bytes;
  switch (piece.tensors.front().spec.unit) {
    case Unit::attention:
      return packed + attention_bytes(piece, shape);
    case Unit::feed_forward:
    case Unit::expert:
      return packed + mlp_bytes(piece, shape);
    case Unit::head:
    case Unit::mtp_head:
      return packed + (piece.tensors.front().spec.shape.size() == 2 ? head_bytes(piece, shape) : 0);
    case Unit::embedding:
    case Unit::mtp_input:
      return packed + 2 * shape.seq_len * shape.element_bytes * piece.tensors.front().spec.shape[0];
  }
  return packed;
}

}  // namespace blockptq
