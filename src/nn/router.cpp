#include "nn/router.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

namespace blockptq::nn {

GroupLimitedRouter::GroupLimitedRouter(Spec spec, at::Tensor weight_ED, at::Tensor bias_E)
    : spec_(spec), weight_ED_(std::move(weight_ED)), bias_E_(std::move(bias_E)) {}

Routing GroupLimitedRouter::route(const at::Tensor& x_TD) const {
  const at::Tensor scores_TE = at::linear(x_TD.to(at::kFloat), weight_ED_).sigmoid_();
  at::Tensor choice_TE = scores_TE + bias_E_;
  if (spec_.top_groups < spec_.groups) {
    const at::Tensor grouped = choice_TE.unflatten(-1, {spec_.groups, -1});
    const at::Tensor group_scores_TG =
        std::get<0>(grouped.topk(std::min<int64_t>(2, grouped.size(-1)), -1)).sum(-1);
    const at::Tensor kept = std::get<1>(group_scores_TG.topk(spec_.top_groups, -1));
    const at::Tensor dropped_TG =
        at::ones_like(group_scores_TG, at::kBool).scatter_(-1, kept, false);
    choice_TE =
        grouped.masked_fill(dropped_TG.unsqueeze(-1), -std::numeric_limits<float>::infinity())
            .flatten(-2);
  }
  const at::Tensor experts_TK = std::get<1>(choice_TE.topk(spec_.top_k, -1));
  at::Tensor weights_TK = scores_TE.gather(-1, experts_TK);
  if (spec_.normalize && spec_.top_k > 1) {
    weights_TK = weights_TK / weights_TK.sum(-1, /*keepdim=*/true).add_(1e-20);
  }
  return {experts_TK, weights_TK * spec_.scaling};
}

SoftmaxRouter::SoftmaxRouter(Spec spec, at::Tensor weight_ED)
    : spec_(spec), weight_ED_(std::move(weight_ED)) {}

Routing SoftmaxRouter::route(const at::Tensor& x_TD) const {
  const at::Tensor p_TE = at::softmax(at::linear(x_TD.to(at::kFloat), weight_ED_), -1);
  auto [weights_TK, experts_TK] = p_TE.topk(spec_.top_k, -1);
  if (spec_.normalize) {
    weights_TK = weights_TK / weights_TK.sum(-1, /*keepdim=*/true);
  }
  return {experts_TK, weights_TK};
}

}  // namespace blockptq::nn
