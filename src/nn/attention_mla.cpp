#include "nn/attention_mla.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "nn/attend.h"
#include "nn/norm.h"

namespace blockptq::nn {
namespace {

constexpr double kLatentNormEps =
    1e-6;  // the class default in the published code, not rms_norm_eps

}  // namespace

MlaAttention::MlaAttention(const MlaSpec& spec, Weights weights, std::optional<Indexer> indexer)
    : spec_(spec), weights_(std::move(weights)), indexer_(std::move(indexer)) {}

Activation MlaAttention::query_residual(const Exec& exec, const at::Tensor& x_TD) const {
  const at::Tensor q_TQ = exec.linear(weights_.q_a_proj, {x_TD});
  return exec.input(Site::before(weights_.q_b_proj),
                    rms_norm(q_TQ, weights_.q_a_layernorm, kLatentNormEps));
}

at::Tensor MlaAttention::select(const Exec& exec, const Activation& q_residual,
                                const at::Tensor& x_TD, const RopeTable& rope,
                                const AttentionOptions& options) const {
  if (options.dense || !indexer_ || !indexer_->selects(x_TD.size(0))) {
    return {};
  }
  return indexer_->select(exec, q_residual, x_TD, rope,
                          std::min(options.workspace_bytes, kScoreTileBytes));
}

at::Tensor MlaAttention::selected_keys(const Exec& exec, const at::Tensor& x_TD,
                                       const AttentionOptions& options) const {
  const RopeTable rope = make_rope_table(spec_.rope, x_TD.size(0), x_TD.device());
  return select(exec, query_residual(exec, x_TD), x_TD, rope, options);
}

at::Tensor MlaAttention::attend_heads(const Exec& exec, const Activation& q_residual,
                                      const Activation& latent, const at::Tensor& k_rope_TR,
                                      const RopeTable& rope, const at::Tensor& selected_TT,
                                      int64_t begin, int64_t end, int64_t workspace_bytes) const {
  const int64_t heads = end - begin;
  const int64_t nope = spec_.qk_nope_head_dim;
  const int64_t q_dim = nope + spec_.qk_rope_head_dim;
  const int64_t kv_dim = nope + spec_.v_head_dim;
  const at::Tensor q_THK =
      exec.linear(weights_.q_b_proj.rows(begin * q_dim, end * q_dim), q_residual)
          .unflatten(-1, {heads, q_dim});
  const at::Tensor kv_THK =
      exec.linear(weights_.kv_b_proj.rows(begin * kv_dim, end * kv_dim), latent)
          .unflatten(-1, {heads, kv_dim});
  at::Tensor q_HTK = at::empty({heads, q_THK.size(0), q_dim}, q_THK.options());
  at::Tensor k_HTK = at::empty_like(q_HTK);
  q_HTK.slice(2, 0, nope).copy_(q_THK.slice(2, 0, nope).transpose(0, 1));
  k_HTK.slice(2, 0, nope).copy_(kv_THK.slice(2, 0, nope).transpose(0, 1));
  k_HTK.slice(2, nope).copy_(k_rope_TR.unsqueeze(0));
  rotate_into(q_THK.slice(2, nope), rope, RopeLayout::interleaved,
              q_HTK.slice(2, nope).transpose(0, 1));
  const double scale = spec_.rope.softmax_factor() / std::sqrt(static_cast<double>(q_dim));
  return attend(q_HTK, k_HTK, kv_THK.slice(-1, nope).transpose(0, 1), selected_TT, scale,
                workspace_bytes);
}

at::Tensor MlaAttention::forward(const Exec& exec, const at::Tensor& x_TD,
                                 const AttentionOptions& options) const {
  const int64_t tokens = x_TD.size(0);
  const RopeTable rope = make_rope_table(spec_.rope, tokens, x_TD.device());
  const Activation q_residual = query_residual(exec, x_TD);
  const at::Tensor kv = exec.linear(weights_.kv_a_proj_with_mqa, {x_TD});
  const Activation latent = {exec.point(
      {SiteKind::kv_latent, weights_.kv_b_proj.name, weights_.kv_b_proj.role},
      rms_norm(kv.slice(-1, 0, spec_.kv_lora_rank), weights_.kv_a_layernorm, kLatentNormEps))};
  at::Tensor k_rope_TR = at::empty({tokens, spec_.qk_rope_head_dim}, x_TD.options());
  rotate_into(kv.slice(1, spec_.kv_lora_rank).unsqueeze(1), rope, RopeLayout::interleaved,
              k_rope_TR.unsqueeze(1));
  const at::Tensor selected_TT = select(exec, q_residual, x_TD, rope, options);

  // Half of the workspace for queries, keys and values of a group of heads, the rest for their
  // scores.
  const int64_t head_bytes =
      tokens * x_TD.element_size() *
      (4 * (spec_.qk_nope_head_dim + spec_.qk_rope_head_dim) + 3 * spec_.v_head_dim);
  const int64_t group =
      std::clamp<int64_t>(options.workspace_bytes / 2 / head_bytes, 1, spec_.heads);
  at::Tensor out_THV = at::empty({tokens, spec_.heads, spec_.v_head_dim}, x_TD.options());
  for (int64_t begin = 0; begin < spec_.heads; begin += group) {
    const int64_t end = std::min(begin + group, spec_.heads);
    out_THV.slice(1, begin, end)
        .copy_(attend_heads(exec, q_residual, latent, k_rope_TR, rope, selected_TT, begin, end,
                            std::min(options.workspace_bytes / 2, kScoreTileBytes)));
  }
  return exec.linear(weights_.o_proj,
                     exec.input(Site::before(weights_.o_proj), out_THV.flatten(1)));
}

}  // namespace blockptq::nn
