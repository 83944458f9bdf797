#include "nn/indexer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/index_scores.h"
#include "nn/fused.h"
#include "nn/norm.h"
#include "tensor/parallel.h"

namespace blockptq::nn {
namespace {

constexpr double kKeyNormEps = 1e-6;

/// x_THK with the first `rope_dim` dimensions of every head rotated.
at::Tensor rotate_front(const at::Tensor& x_THK, const RopeTable& rope, int64_t rope_dim) {
  at::Tensor out = x_THK.clone();
  rotate_into(x_THK.slice(2, 0, rope_dim), rope, RopeLayout::half_split, out.slice(2, 0, rope_dim));
  return out;
}

/// Scores of a tile of queries against all keys: sum over heads of weight * relu(q . k).
at::Tensor score_tile(const at::Tensor& q_QHK, const at::Tensor& k_SK, const at::Tensor& w_QH) {
  const int64_t queries = q_QHK.size(0);
  const int64_t heads = q_QHK.size(1);
  const int64_t keys = k_SK.size(0);
  const at::Tensor dots = at::mm(q_QHK.flatten(0, 1), k_SK.t());
  if (!can_fuse(dots)) {
    return at::bmm(w_QH.unsqueeze(1), at::relu(dots).unflatten(0, {queries, heads})).squeeze(1);
  }
  at::Tensor scores_QS = at::empty({queries, keys}, dots.options());
  const at::Tensor weights = w_QH.contiguous();
  parallel_rows(queries, heads * keys, [&](int64_t begin, int64_t end) {
    kernels::index_scores(dots.const_data_ptr<float>() + begin * heads * keys,
                          weights.const_data_ptr<float>() + begin * heads, end - begin, heads, keys,
                          scores_QS.mutable_data_ptr<float>() + begin * keys, keys);
  });
  return scores_QS;
}

}  // namespace

at::Tensor Indexer::select(const Exec& exec, const Activation& q_residual_TQ,
                           const at::Tensor& x_TD, const RopeTable& rope,
                           int64_t workspace_bytes) const {
  const int64_t tokens = x_TD.size(0);
  const at::Tensor q_THK = exec.point(
      {SiteKind::indexer_query, wq_b.name, wq_b.role},
      rotate_front(exec.linear(wq_b, q_residual_TQ).unflatten(-1, {spec.heads, spec.head_dim}),
                   rope, spec.rope_dim));
  const at::Tensor k_TK = exec.point(
      {SiteKind::indexer_key, wk.name, wk.role},
      rotate_front(
          layer_norm(exec.linear(wk, {x_TD}), k_norm_weight, k_norm_bias, kKeyNormEps).unsqueeze(1),
          rope, spec.rope_dim)
          .squeeze(1));
  const at::Tensor w_TH = exec.linear(weights_proj, {x_TD.to(at::kFloat)}) *
                          (1.0 / std::sqrt(static_cast<double>(spec.heads * spec.head_dim)));
  const at::Tensor keys_TK = k_TK.to(at::kFloat);

  at::Tensor selected_TT =
      at::ones({tokens, tokens}, at::TensorOptions(at::kBool).device(x_TD.device())).tril_();
  const int64_t row_bytes = 4 * tokens * (spec.heads + 3);
  const int64_t tile = std::clamp<int64_t>(workspace_bytes / row_bytes, 1, tokens);
  // The first top_k queries see every earlier key.
  for (int64_t begin = spec.top_k; begin < tokens; begin += tile) {
    const int64_t end = std::min(begin + tile, tokens);
    at::Tensor rows_QT = selected_TT.slice(0, begin, end);
    at::Tensor scores_QT =
        score_tile(q_THK.slice(0, begin, end).to(at::kFloat), keys_TK, w_TH.slice(0, begin, end));
    scores_QT.masked_fill_(rows_QT.logical_not(), -std::numeric_limits<float>::infinity());
    // Scores tie often (relu makes exact zeros). Whole rows and ATen's choice, as the published
    // code has it.
    const at::Tensor keys =
        std::get<1>(scores_QT.topk(spec.top_k, -1, /*largest=*/true, /*sorted=*/false));
    rows_QT.logical_and_(at::zeros_like(rows_QT).scatter_(-1, keys, true));
  }
  return selected_TT;
}

}  // namespace blockptq::nn
