#include "eval/model_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
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

/// The pieces of an output head: its norm, then the tiles of its matrix.
std::vector<PieceSpec> head_pieces(const std::vector<ModelTensor>& table, Unit unit,
                                   at::ScalarType type) {
  const ModelTensor& head = head_weight(table, unit);
  std::vector<PieceSpec> pieces{one_tensor(tensor_of(table, unit, "norm"))};
  append(pieces, row_pieces(head, head_tile_rows(head, type)));
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

int64_t expert_slice_tokens(const ModelSpec& spec, int64_t workspace_bytes) {
  return std::clamp<int64_t>(workspace_bytes / (24 * spec.hidden_size), 64, 4096);
}

}  // namespace

std::vector<PieceSpec> route_pieces(const Model& model, const Route& route, at::ScalarType type) {
  const std::vector<ModelTensor> table = model.tensors();
  const int64_t blocks = model.spec().blocks;
  std::vector<PieceSpec> pieces = block_pieces(table, route.begin, std::min(route.end, blocks));
  if (route.head) {
    append(pieces, head_pieces(table, Unit::head, type));
  }
  if (route.mtp) {
    pieces.push_back(mtp_input_piece(table));
    append(pieces, block_pieces(table, blocks, blocks + 1));
    append(pieces, head_pieces(table, Unit::mtp_head, type));
  }
  return pieces;
}

ModelPass::ModelPass(const Subject& subject, const TokenWindows& windows, const Route& route,
                     const PassOptions& options, at::Tensor states_CLD)
    : subject_(subject),
      windows_(windows),
      options_(options),
      table_(subject.model.tensors()),
      loader_(subject.checkpoint, options.type, options.device, subject.arithmetic.transform,
              subject.arithmetic.integers),
      states_CLD_(std::move(states_CLD)) {
  if (!states_CLD_.defined()) {
    states_CLD_ = embed(subject.checkpoint, tensor_of(table_, Unit::embedding, "embedding"),
                        windows.ids, options.type)
                      .view({windows.count(), windows.seq_len, -1});
  }
  states_CLD_ = states_CLD_.to(options.device);
  stream_ =
      std::make_unique<PieceStream>(loader_, route_pieces(subject.model, route, options.type));
}

void ModelPass::run_block(int64_t block, const BlockRunner::OnStep& on_step) {
  BlockRunner(subject_.model, *subject_.arithmetic.exec, options_.attention,
              expert_slice_tokens(subject_.model.spec(), options_.attention.workspace_bytes),
              on_step)
      .run(*stream_, block, states_CLD_);
}

void ModelPass::normalize() {
  const at::Tensor norm_D = stream_->next().only().clone();
  const double eps = subject_.model.spec().rms_norm_eps;
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(nn::rms_norm(states_CLD_[c], norm_D, eps));
  }
}

int64_t ModelPass::head_tiles(Unit unit) const {
  const ModelTensor& head = head_weight(table_, unit);
  return ceil_div(head.shape[0], head_tile_rows(head, options_.type));
}

void ModelPass::enter_mtp() {
  const Piece piece = stream_->next();
  const int64_t block = subject_.model.spec().blocks;
  const ModelTensor& embedding = tensor_of(table_, Unit::mtp_input, "embedding");
  std::vector<int32_t> next_ids;
  for (int64_t c = 0; c < windows_.count(); ++c) {
    const auto window = windows_.window(c);
    next_ids.insert(next_ids.end(), window.begin() + 1, window.end());
    next_ids.push_back(window.front());
  }
  const at::Tensor embedded_CLD = embed(subject_.checkpoint, embedding, next_ids, options_.type)
                                      .view({windows_.count(), windows_.seq_len, -1});
  for (int64_t c = 0; c < windows_.count(); ++c) {
    states_CLD_[c].copy_(subject_.model.mtp_input(piece, block, embedded_CLD[c].to(options_.device),
                                                  states_CLD_[c]));
  }
}

}  // namespace blockptq
