#include "eval/block_runner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "eval/expert_exchange.h"
#include "nn/norm.h"
#include "nn/scatter_add.h"

namespace blockptq {
namespace {

Dispatch dispatch_tokens(const at::Tensor& experts_NK, const at::Tensor& weights_NK,
                         int64_t experts) {
  const at::Tensor flat = experts_NK.flatten();
  const at::Tensor order = flat.argsort(/*stable=*/true);
  const at::Tensor counts = flat.bincount({}, experts).cpu();
  Dispatch result{
      order.floor_divide(experts_NK.size(1)), weights_NK.flatten().index_select(0, order), {0}};
  for (int64_t expert = 0; expert < experts; ++expert) {
    result.offsets.push_back(result.offsets.back() + counts[expert].item<int64_t>());
  }
  return result;
}

}  // namespace

BlockRunner::BlockRunner(const Model& model, const Exec& exec, nn::AttentionOptions attention,
                         int64_t slice_tokens, OnStep on_step, Ranks& ranks)
    : model_(model),
      exec_(exec),
      attention_(attention),
      slice_tokens_(slice_tokens),
      on_step_(std::move(on_step)),
      ranks_(ranks) {}

void BlockRunner::run(PieceStream& stream, int64_t block, at::Tensor& states_CLD) const {
  BPTQ_ASSERT(states_CLD.is_contiguous());
  run_attention(stream, block, states_CLD);
  run_feed_forward(stream, block, states_CLD.flatten(0, 1));
}

void BlockRunner::run_attention(PieceStream& stream, int64_t block, at::Tensor& states_CLD) const {
  const Piece piece = stream.next();
  const at::Tensor norm_D = model_.attention_norm(piece, block);
  const auto attention = model_.attention(piece, block);
  for (int64_t c = 0; c < states_CLD.size(0); ++c) {
    check_stop();
    at::Tensor states_LD = states_CLD[c];
    const at::Tensor x_LD = nn::rms_norm(states_LD, norm_D, model_.spec().rms_norm_eps);
    states_LD.add_(attention->forward(exec_, x_LD, attention_));
    on_step_(fmt::format("attention {}/{}", c + 1, states_CLD.size(0)));
  }
}

void BlockRunner::run_feed_forward(PieceStream& stream, int64_t block,
                                   const at::Tensor& states_ND) const {
  const double eps = model_.spec().rms_norm_eps;
  const int64_t tokens = states_ND.size(0);
  at::Tensor norm_D;
  at::Tensor out_ND;
  std::vector<at::Tensor> experts;
  std::vector<at::Tensor> weights;
  {
    const Piece piece = stream.next();
    const FeedForward feed_forward = model_.feed_forward(piece, block);
    const bool moe = feed_forward.router != nullptr;
    norm_D = feed_forward.norm_D.clone();
    out_ND = moe ? at::zeros_like(states_ND) : states_ND;
    for (int64_t begin = 0; begin < tokens; begin += slice_tokens_) {
      check_stop();
      const int64_t end = std::min(begin + slice_tokens_, tokens);
      const at::Tensor x = nn::rms_norm(states_ND.slice(0, begin, end), norm_D, eps);
      if (feed_forward.mlp) {
        out_ND.slice(0, begin, end).add_(feed_forward.mlp->forward(exec_, x));
      }
      if (moe) {
        nn::Routing routing = feed_forward.router->route(x);
        experts.push_back(std::move(routing.experts_TK));
        weights.push_back(std::move(routing.weights_TK));
      }
    }
  }
  on_step_("feed forward");
  if (!experts.empty()) {
    run_experts(stream, block, states_ND, norm_D, at::cat(experts), at::cat(weights), out_ND);
    states_ND.add_(out_ND);
  }
}

void BlockRunner::run_experts(PieceStream& stream, int64_t block, const at::Tensor& states_ND,
                              const at::Tensor& norm_D, const at::Tensor& experts_NK,
                              const at::Tensor& weights_NK, at::Tensor& out_ND) const {
  const int64_t experts = model_.experts(block);
  const Dispatch dispatch = dispatch_tokens(experts_NK, weights_NK, experts);
  if (ranks_.shared()) {
    share_experts(stream, block, states_ND, norm_D, dispatch, out_ND);
    return;
  }
  for (int64_t e = 0; e < experts; ++e) {
    check_stop();
    const Piece piece = stream.next();
    const nn::Mlp mlp = model_.expert(piece, block, e);
    for (int64_t begin = dispatch.offsets[e]; begin < dispatch.offsets[e + 1];
         begin += slice_tokens_) {
      const int64_t end = std::min(begin + slice_tokens_, dispatch.offsets[e + 1]);
      const at::Tensor tokens = dispatch.tokens.slice(0, begin, end);
      const at::Tensor x =
          nn::gather_rms_norm(states_ND, tokens, norm_D, model_.spec().rms_norm_eps);
      nn::scatter_add(out_ND, tokens, dispatch.weights.slice(0, begin, end), mlp.forward(exec_, x));
    }
    on_step_(fmt::format("expert {}/{}", e + 1, experts));
  }
}

void BlockRunner::share_experts(PieceStream& stream, int64_t block, const at::Tensor& states_ND,
                                const at::Tensor& norm_D, const Dispatch& dispatch,
                                at::Tensor& out_ND) const {
  const int64_t experts = model_.experts(block);
  std::vector<int64_t> counts;
  for (int64_t e = 0; e < experts; ++e) {
    counts.push_back(dispatch.count(e));
  }
  const auto rows = [&](int64_t e) {
    return dispatch.tokens.slice(0, dispatch.offsets[e], dispatch.offsets[e + 1]);
  };
  const ExpertWork work{
      [&](int64_t e) {
        return nn::gather_rms_norm(states_ND, rows(e), norm_D, model_.spec().rms_norm_eps);
      },
      [&](int64_t e, const at::Tensor& x_TD) {
        const Piece piece = stream.next();
        const nn::Mlp mlp = model_.expert(piece, block, e);
        at::Tensor y_TD = at::empty_like(x_TD);
        for (int64_t begin = 0; begin < x_TD.size(0); begin += slice_tokens_) {
          const int64_t end = std::min(begin + slice_tokens_, x_TD.size(0));
          const at::Tensor x = x_TD.slice(0, begin, end).to(states_ND.device());
          y_TD.slice(0, begin, end).copy_(mlp.forward(exec_, x));
        }
        on_step_(fmt::format("expert {}/{}", e + 1, experts));
        return y_TD;
      },
      [&](int64_t e, const at::Tensor& y_TD) {
        if (y_TD.size(0) > 0) {
          nn::scatter_add(out_ND, rows(e),
                          dispatch.weights.slice(0, dispatch.offsets[e], dispatch.offsets[e + 1]),
                          y_TD.to(out_ND.device()));
        }
      }};
  const int64_t max_rows = maximum(ranks_, exchanged_rows(states_ND.size(0)));
  exchange_experts(ranks_, counts, states_ND.size(1), max_rows, states_ND.options(), work);
}

}  // namespace blockptq
