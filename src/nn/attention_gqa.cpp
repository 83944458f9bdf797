#include "nn/attention_gqa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "nn/attend.h"
#include "nn/norm.h"

namespace blockptq::nn {

GqaAttention::GqaAttention(const GqaSpec& spec, Weights weights)
    : spec_(spec), weights_(std::move(weights)) {}

void GqaAttention::norm_and_rotate(const at::Tensor& x_THK, const at::Tensor& norm_K,
                                   const RopeTable& rope, at::Tensor out_THK) const {
  const at::Tensor normed_THK =
      norm_K.defined() ? rms_norm(x_THK.flatten(0, 1), norm_K, spec_.norm_eps).view_as(x_THK)
                       : x_THK;
  rotate_into(normed_THK, rope, RopeLayout::half_split, std::move(out_THK));
}

at::Tensor GqaAttention::queries(const Exec& exec, const Activation& x, const RopeTable& rope,
                                 int64_t begin, int64_t end) const {
  const int64_t dim = spec_.head_dim;
  const at::Tensor q_THK = exec.linear(weights_.q_proj.rows(begin * dim, end * dim), x)
                               .unflatten(-1, {end - begin, dim});
  at::Tensor q_HTK = at::empty({end - begin, q_THK.size(0), dim}, q_THK.options());
  norm_and_rotate(q_THK, weights_.q_norm, rope, q_HTK.transpose(0, 1));
  return q_HTK;
}

at::Tensor GqaAttention::forward(const Exec& exec, const at::Tensor& x_TD,
                                 const AttentionOptions& options) const {
  const int64_t tokens = x_TD.size(0);
  const int64_t dim = spec_.head_dim;
  check(spec_.max_tokens == 0 || tokens <= spec_.max_tokens,
        "the model's sliding window: expected sequences of at most {} tokens, found {}",
        spec_.max_tokens, tokens);
  const RopeTable rope = make_rope_table(spec_.rope, tokens, x_TD.device());
  const Activation x = exec.input(Site::before(weights_.q_proj), x_TD);
  at::Tensor k_TGK = at::empty({tokens, spec_.kv_heads, dim}, x_TD.options());
  norm_and_rotate(exec.linear(weights_.k_proj, x).unflatten(-1, {spec_.kv_heads, dim}),
                  weights_.k_norm, rope, k_TGK);
  k_TGK = exec.point({SiteKind::key_cache, weights_.k_proj.name, weights_.k_proj.role}, k_TGK);
  const at::Tensor v_TGK =
      exec.point({SiteKind::value_cache, weights_.v_proj.name, weights_.v_proj.role},
                 exec.linear(weights_.v_proj, x).unflatten(-1, {spec_.kv_heads, dim}));
  const at::Tensor k_GTK = k_TGK.transpose(0, 1).contiguous();
  const at::Tensor v_GTK = v_TGK.transpose(0, 1).contiguous();

  // Half of the workspace for the queries of some heads in their forms and results, the rest for
  // their scores.
  const int64_t repeats = spec_.heads / spec_.kv_heads;
  const int64_t group_bytes = 5 * tokens * repeats * dim * x_TD.element_size();
  const int64_t step =
      std::clamp<int64_t>(options.workspace_bytes / 2 / group_bytes, 1, spec_.kv_heads);
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  at::Tensor out_THK = at::empty({tokens, spec_.heads, dim}, x_TD.options());
  for (int64_t begin = 0; begin < spec_.kv_heads; begin += step) {
    const int64_t end = std::min(begin + step, spec_.kv_heads);
    const at::Tensor q_HTK = queries(exec, x, rope, begin * repeats, end * repeats);
    out_THK.slice(1, begin * repeats, end * repeats)
        .copy_(attend(q_HTK, k_GTK.slice(0, begin, end), v_GTK.slice(0, begin, end), {}, scale,
                      std::min(options.workspace_bytes / 2, kScoreTileBytes)));
  }
  return exec.linear(weights_.o_proj,
                     exec.input(Site::before(weights_.o_proj), out_THK.flatten(1)));
}

}  // namespace blockptq::nn
