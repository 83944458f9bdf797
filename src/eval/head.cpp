#include "eval/head.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/system.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

constexpr int64_t kTokensPerTile = 1024;
constexpr int64_t kTokensCompared = 128;  // several fp32 copies of both logits exist at once

/// Takes over the tile's best logits and their ids where they are better.
void take_best(const at::Tensor& logits_NV, int64_t first, at::Tensor best_N, at::Tensor id_N) {
  const auto [value_N, column_N] = logits_NV.max(-1);
  const at::Tensor better_N = value_N > best_N;
  best_N.copy_(at::where(better_N, value_N, best_N));
  id_N.copy_(at::where(better_N, column_N + first, id_N));
}

}  // namespace

HeadMeasure::HeadMeasure(at::Tensor targets_N)
    : targets_N_(std::move(targets_N)),
      stats_(targets_N_.numel()),
      target_logits_(targets_N_.numel()) {}

void HeadMeasure::add_losses(const at::Tensor& logits_NV, int64_t begin) {
  const at::Tensor host = logits_NV.cpu().contiguous();
  const int64_t width = host.size(1);
  const auto type = float_type(host.scalar_type());
  const auto* data = static_cast<const std::byte*>(host.const_data_ptr());
  const int64_t row_bytes = width * kernels::element_size(type);
  at::parallel_for(0, host.size(0), 16, [&](int64_t row_begin, int64_t row_end) {
    kernels::accumulate_softmax(data + row_begin * row_bytes, type, row_end - row_begin, width,
                                width, &stats_[begin + row_begin]);
  });
  const auto* targets = targets_N_.const_data_ptr<int32_t>() + begin;
  for (int64_t row = 0; row < host.size(0); ++row) {
    const int64_t column = targets[row] - first_;
    if (targets[row] >= 0 && column >= 0 && column < width) {
      target_logits_[begin + row] = host[row][column].item<double>();
    }
  }
}

void HeadMeasure::add_divergence(const at::Tensor& logits_NV, const at::Tensor& reference_NV,
                                 int64_t begin) {
  if (!max_N_.defined()) {
    const auto options = logits_NV.options().dtype(at::kDouble);
    max_N_ = at::full({targets_N_.numel()}, -std::numeric_limits<double>::infinity(), options);
    sum_N_ = at::zeros_like(max_N_);
    gap_N_ = at::zeros_like(max_N_);
    top_N_ = max_N_.to(at::kFloat);
    reference_top_N_ = top_N_.clone();
    top_id_N_ = at::zeros_like(max_N_, options.dtype(at::kLong));
    reference_top_id_N_ = at::zeros_like(top_id_N_);
  }
  for (int64_t row = 0; row < logits_NV.size(0); row += kTokensCompared) {
    const int64_t count = std::min(kTokensCompared, logits_NV.size(0) - row);
    const auto part = [&](at::Tensor x_N) { return x_N.narrow(0, begin + row, count); };
    const at::Tensor logits = logits_NV.narrow(0, row, count).to(at::kFloat);
    const at::Tensor reference = reference_NV.narrow(0, row, count).to(at::kFloat);
    take_best(logits, first_, part(top_N_), part(top_id_N_));
    take_best(reference, first_, part(reference_top_N_), part(reference_top_id_N_));
    const at::Tensor max_N = at::maximum(part(max_N_), reference.amax(-1).to(at::kDouble));
    const at::Tensor earlier_N = (part(max_N_) - max_N).exp();
    const at::Tensor p = (reference - max_N.to(at::kFloat).unsqueeze(1)).exp();
    part(sum_N_).mul_(earlier_N).add_(p.sum(-1, false, at::kDouble));
    part(gap_N_).mul_(earlier_N).add_((p * (reference - logits)).sum(-1, false, at::kDouble));
    part(max_N_).copy_(max_N);
  }
}

void HeadMeasure::add(const at::Tensor& states_ND, const at::Tensor& head_VD) {
  add(states_ND, head_VD, {}, {});
}

void HeadMeasure::add(const at::Tensor& states_ND, const at::Tensor& head_VD,
                      const at::Tensor& reference_states_ND, const at::Tensor& reference_head_VD) {
  for (int64_t begin = 0; begin < states_ND.size(0); begin += kTokensPerTile) {
    check_stop();
    const int64_t end = std::min(begin + kTokensPerTile, states_ND.size(0));
    const at::Tensor logits_NV = at::linear(states_ND.slice(0, begin, end), head_VD);
    add_losses(logits_NV, begin);
    if (reference_states_ND.defined()) {
      add_divergence(logits_NV,
                     at::linear(reference_states_ND.slice(0, begin, end), reference_head_VD),
                     begin);
    }
  }
  first_ += head_VD.size(0);
}

at::Tensor HeadMeasure::losses() const {
  at::Tensor result = at::zeros({targets_N_.numel()}, at::kDouble);
  auto* loss = result.mutable_data_ptr<double>();
  const auto* targets = targets_N_.const_data_ptr<int32_t>();
  for (size_t token = 0; token < stats_.size(); ++token) {
    loss[token] = targets[token] < 0
                      ? 0.0
                      : stats_[token].max + std::log(stats_[token].sum) - target_logits_[token];
  }
  return result;
}

at::Tensor HeadMeasure::divergence() const {
  at::Tensor result = (gap_N_ / sum_N_ - max_N_ - sum_N_.log()).cpu();
  auto* kl = result.mutable_data_ptr<double>();
  for (size_t token = 0; token < stats_.size(); ++token) {
    kl[token] += stats_[token].max + std::log(stats_[token].sum);
  }
  return result;
}

at::Tensor HeadMeasure::agreement() const {
  return (top_id_N_ == reference_top_id_N_).cpu();
}

}  // namespace blockptq
