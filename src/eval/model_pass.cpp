#include "eval/model_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/size.h"
#include "models/ends.h"
#include "nn/norm.h"

namespace blockptq {
namespace {

constexpr int64_t kHeadTileBytes = int64_t{64} << 20;

int64_t head_tile_rows(const ModelTensor& head, at::ScalarType type) {
  const int64_t row_bytes = head.shape[1] * static_cast<int64_t>(at::elementSize(type));
  return std::clamp<int64_t>(kHeadTileBytes / row_bytes, 1, 16384);
}

PieceSpec one_tensor(const ModelTensor& tensor) {
  return {{{tensor}}};
}

void append(std::vector<PieceSpec>& pieces, std::vector<PieceSpec> more) {
  std::move(more.begin(), more.end(), std::back_inserter(pieces));
}

/// The pieces of an output head: its norm, then the tiles of its matrix if `logits`.
std::vector<PieceSpec> head_pieces(const std::vector<ModelTensor>& table, Unit unit,
                                   at::ScalarType type, bool logits) {
  std::vector<PieceSpec> pieces{one_tensor(tensor_of(table, unit, "norm"))};
  if (logits) {
    const ModelTensor& head = head_weight(table, unit);
    append(pieces, row_pieces(head, head_tile_rows(head, type)));
  }
  return pieces;
}

/// What feeds the MTP layer, without its embedding, whose rows are looked up.
PieceSpec mtp_input_piece(const std::vector<ModelTensor>& table) {
  PieceSpec piece;
  for (const ModelTensor& tensor : table) {
    if (tensor.unit == Unit::mtp_input && tensor.role != "embedding") {
      piece.tensors.push_back({tensor});
    }
  }
  return piece;
}

}  // namespace

std::vector<PieceSpec> route_pieces(const Model& model, const Route& route, at::ScalarType type) {
  const std::vector<ModelTensor> table = model.tensors();
  const int64_t blocks = model.spec().blocks;
  std::vector<PieceSpec> pieces = block_pieces(table, route.begin, std::min(route.end, blocks));
  if (route.head) {
    append(pieces, head_pieces(table, Unit::head, type, route.logits));
  }
  if (route.mtp) {
    pieces.push_back(mtp_input_piece(table));
    append(pieces, block_pieces(table, blocks, blocks + 1));
    append(pieces, head_pieces(table, Unit::mtp_head, type, route.logits));
  }
  return pieces;
}

ModelPass::ModelPass(const Subject& subject, const TokenWindows& windows, const Route& route,
                     const PassOptions& options, at::Tensor states_CLD, Ranks& ranks)
    : subject_(subject),
      windows_(windows),
      options_(options),
      ranks_(ranks),
      table_(subject.model.tensors()),
      loader_(subject.checkpoint, options.type, options.device, subject.arithmetic.transform,
              subject.arithmetic.integers, ranks, options.weights),
      states_CLD_(std::move(states_CLD)) {
  if (!states_CLD_.defined()) {
    states_CLD_ = embed(subject.checkpoint, tensor_of(table_, Unit::embedding, "embedding"),
                        windows.ids, options.type)
                      .view({windows.count(), windows.seq_len, -1});
  }
  states_CLD_ = states_CLD_.to(options.device);
  stream_ = std::make_unique<PieceStream>(
      loader_, shared_pieces(route_pieces(subject.model, route, options.type), ranks));
}

void ModelPass::run_block(int64_t block, const BlockRunner::OnStep& on_step) {
  BlockRunner(subject_.model, *subject_.arithmetic.exec, options_.attention,
              expert_slice_tokens(subject_.model.spec(), options_.attention.workspace_bytes),
              on_step, ranks_)
      .run(*stream_, block, states_CLD_);
}

void ModelPass::normalize() {
  const at::Tensor norm_D = stream_->next().only().clone();
  const double eps = subject_.model.spec().rms_norm_eps;
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(nn::rms_norm(states_CLD_[c], norm_D, eps));
  }
}

void ModelPass::enter_mtp() {
  const Piece piece = stream_->next();
  const at::Tensor embedded_CLD =
      embed(subject_.checkpoint, tensor_of(table_, Unit::mtp_input, "embedding"),
            next_tokens(windows_), options_.type)
          .view(states_CLD_.sizes());
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(subject_.model.mtp_input(
        piece, subject_.model.spec().blocks, embedded_CLD[c].to(options_.device), states_CLD_[c]));
  }
}

int64_t expert_slice_tokens(const ModelSpec& spec, int64_t workspace_bytes) {
  return std::clamp<int64_t>(workspace_bytes / (24 * spec.hidden_size), 64, 4096);
}

int64_t head_tiles(const Model& model, Unit unit, at::ScalarType type) {
  const std::vector<ModelTensor> table = model.tensors();
  const ModelTensor& head = head_weight(table, unit);
  return ceil_div(head.shape[0], head_tile_rows(head, type));
}

std::vector<int32_t> next_tokens(const TokenWindows& windows) {
  std::vector<int32_t> next;
  for (int64_t c = 0; c < windows.count(); ++c) {
    const auto window = windows.window(c);
    next.insert(next.end(), window.begin() + 1, window.end());
    next.push_back(window.front());
  }
  return next;
}

int64_t stored_bytes(const Checkpoint& checkpoint, const std::vector<PieceSpec>& pieces) {
  double bytes = 0;
  for (const PieceSpec& piece : pieces) {
    for (const TensorSlice& slice : piece.tensors) {
      const auto rows = static_cast<double>(slice.spec.shape.front());
      const auto taken = slice.row_end < 0 ? rows : double(slice.row_end - slice.row_begin);
      bytes += static_cast<double>(checkpoint.at(slice.spec.source()).nbytes()) * taken / rows;
    }
  }
  return static_cast<int64_t>(bytes);
}

TokenWindows part_of(const TokenWindows& windows, int index, int parts) {
  const auto edge = [&](int part) {
    return windows.ids.begin() + windows.count() * part / parts * windows.seq_len;
  };
  TokenWindows part = windows;
  part.ids.assign(edge(index), edge(index + 1));
  return part;
}

at::Tensor target_tokens(const TokenWindows& windows, int64_t shift) {
  const at::Tensor tokens_CL =
      at::from_blob(const_cast<int32_t*>(windows.ids.data()), {windows.count(), windows.seq_len},
                    at::TensorOptions(at::kInt));
  at::Tensor targets_CL = at::full({windows.count(), windows.seq_len}, -1, at::kInt);
  targets_CL.slice(1, 0, windows.seq_len - shift).copy_(tokens_CL.slice(1, shift));
  return targets_CL.flatten();
}

double perplexity(const at::Tensor& losses_N, const TokenWindows& windows, int64_t shift) {
  const at::Tensor losses_CL =
      losses_N.view({windows.count(), windows.seq_len}).slice(1, 0, windows.seq_len - shift);
  return std::exp(losses_CL.mean(1).mean().item<double>());
}

}  // namespace blockptq
