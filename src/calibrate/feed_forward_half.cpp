#include "calibrate/feed_forward_half.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <utility>

#include "base/system.h"
#include "calibrate/mlp_unit.h"
#include "calibrate/shared_work.h"
#include "calibrate/smoothing.h"
#include "nn/norm.h"
#include "quant/algorithms/product.h"

namespace blockptq {
namespace {

std::vector<FeedForwardText> feed_forward_texts(const std::vector<TextStates>& texts) {
  std::vector<FeedForwardText> result;
  for (const TextStates& text : texts) {
    FeedForwardText entry;
    entry.float_ND = text.float_CLD.flatten(0, 1);
    entry.quant_ND = text.quant_CLD.flatten(0, 1);
    entry.float_out_ND = at::zeros_like(entry.float_ND);
    entry.quant_out_ND = at::zeros_like(entry.quant_ND);
    entry.calibrate = text.calibrate;
    result.push_back(std::move(entry));
  }
  return result;
}

nn::Routing routing_of(const nn::Router& router, const at::Tensor& states_ND,
                       const at::Tensor& norm_D, double eps, int64_t slice_tokens) {
  std::vector<at::Tensor> experts;
  std::vector<at::Tensor> weights;
  for (const at::Tensor& part : states_ND.split(slice_tokens)) {
    nn::Routing routing = router.route(nn::rms_norm(part, norm_D, eps));
    experts.push_back(std::move(routing.experts_TK));
    weights.push_back(std::move(routing.weights_TK));
  }
  return {at::cat(experts), at::cat(weights)};
}

/// The norm in front of the MLPs, and what reads it beside them.
std::vector<Weight> norm_tensors(const Piece& piece, const ScalePoint& point) {
  std::vector<Weight> tensors{piece.weight(point.producer)};
  for (const std::string& reader : point.readers) {
    tensors.push_back(piece.weight(reader));
  }
  return tensors;
}

}  // namespace

FeedForwardHalf::FeedForwardHalf(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                                 const Model& model, int64_t block, int64_t slice_tokens,
                                 const UnitMaker& units, Ranks& ranks,
                                 const std::vector<TextStates>& texts)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      block_(block),
      slice_tokens_(slice_tokens),
      units_(units),
      ranks_(ranks),
      texts_(feed_forward_texts(texts)),
      outputs_(ranks, texts_, [&units](const std::string& unit) { units.passed(unit); }) {}

void FeedForwardHalf::run(PieceStream& stream) {
  run_common(stream);
  run_experts(stream);
  outputs_.finish();
  for (FeedForwardText& text : texts_) {
    text.float_ND.add_(text.float_out_ND);
    text.quant_ND.add_(text.quant_out_ND);
  }
}

/// The norm, the router, and the MLP that all tokens pass.
void FeedForwardHalf::run_common(PieceStream& stream) {
  const Piece piece = stream.next();
  const FeedForward exact = model_.feed_forward(piece, block_);
  if (!exact.mlp && ranks_.does(0)) {
    first_expert_ = stream.next();
  }
  nn::Mlp sample;
  if (exact.mlp) {
    sample = *exact.mlp;
  } else if (first_expert_) {
    sample = model_.expert(*first_expert_, block_, 0);
  }
  const Piece quantized_piece =
      context_.transforms() ? calibrate_norm(piece, exact, sample) : piece;
  const FeedForward quantized = model_.feed_forward(quantized_piece, block_);
  norm_ = {exact.norm_D.clone(), quantized.norm_D.clone()};
  if (exact.mlp) {
    const std::string name = exact.router ? "shared_experts" : "mlp";
    run_unit(name, model_.experts(block_), *exact.mlp, all_rows(texts_, slice_tokens_), nullptr);
  }
  if (exact.router) {
    route(*exact.router, *quantized.router);
  }
}

Piece FeedForwardHalf::calibrate_norm(const Piece& piece, const FeedForward& half,
                                      const nn::Mlp& sample) {
  const std::vector<Weight> tensors = norm_tensors(piece, half.scale_point);
  const UnitResult result = units_.shared(Makers::first, "norm", tensors, [&] {
    UnitResult chosen = choose_norm(piece, half, sample);
    keep_rotated(context_, tensors, chosen);
    return chosen;
  });
  units_.passed("norm");
  if (const auto found = result.targets.find(half.scale_point.producer);
      found != result.targets.end()) {
    factors_D_ = found->second.folded().rows_O.to(half.norm_D.device());
  }
  Piece quantized = piece;
  for (const Weight& tensor : tensors) {
    quantized.replace(quantized_weight(context_, tensor, result));
  }
  return quantized;
}

UnitResult FeedForwardHalf::choose_norm(const Piece& piece, const FeedForward& half,
                                        const nn::Mlp& sample) const {
  const std::vector<TokenRows> rows = all_rows(texts_, slice_tokens_);
  const TokenSource source =
      token_source(texts_, rows, {half.norm_D, half.norm_D}, model_.spec().rms_norm_eps);
  UnitResult result;
  result.report.tokens = source.tokens;
  if (context_.smooths()) {
    const at::Tensor factors_D = smooth_input(context_, quant_exec_, sample, source, result.report);
    if (factors_D.defined()) {
      note_fold(piece, half.scale_point, factors_D, result.targets);
    }
  }
  return result;
}

void FeedForwardHalf::route(const nn::Router& float_router, const nn::Router& quant_router) {
  const double eps = model_.spec().rms_norm_eps;
  for (FeedForwardText& text : texts_) {
    text.float_routing = routing_of(float_router, text.float_ND, norm_.float_D, eps, slice_tokens_);
    text.quant_routing = routing_of(quant_router, text.quant_ND, norm_.quant_D, eps, slice_tokens_);
  }
}

void FeedForwardHalf::run_experts(PieceStream& stream) {
  GroupedStatistics block_sum;
  for (int64_t e = 0; e < model_.experts(block_); ++e) {
    const bool mine = ranks_.does(e);
    Piece piece;
    nn::Mlp mlp;
    if (mine) {
      piece = first_expert_ ? *std::exchange(first_expert_, std::nullopt) : stream.next();
      mlp = model_.expert(piece, block_, e);
    }
    if (e == 0) {
      block_sum = block_statistics(mine ? &mlp : nullptr);
    }
    run_unit(fmt::format("expert {}", e), e, mlp, expert_rows(texts_, e, slice_tokens_),
             &block_sum);
  }
}

GroupedStatistics FeedForwardHalf::block_statistics(const nn::Mlp* expert) const {
  std::string name = expert == nullptr ? "" : expert->gate.name;
  std::string role = expert == nullptr ? "" : expert->gate.role;
  broadcast(ranks_, name, 0);
  broadcast(ranks_, role, 0);
  const Site site{SiteKind::linear_input, name, role};
  const double eps = model_.spec().rms_norm_eps;
  bool cross = expert != nullptr && needs_cross_sums(context_, {expert->gate, expert->up});
  broadcast(ranks_, Channel::states, &cross, sizeof(cross), 0);
  SharedStatistics sum(ranks_, 0, cross);
  int64_t routed = 0;
  for (const TokenRows& row : all_rows(texts_, slice_tokens_)) {
    const FeedForwardText& text = texts_[row.text];
    if (!text.calibrate) {
      continue;
    }
    const at::Tensor weights_TK = text.quant_routing.weights_TK.index_select(0, row.tokens_T);
    routed += weights_TK.numel();
    if (!sum.sums(ranks_.rank())) {
      continue;
    }
    check_stop();
    const at::Tensor x = nn::gather_rms_norm(text.quant_ND, row.tokens_T, norm_.quant_D, eps);
    const at::Tensor float_x =
        sum.sums_cross(ranks_.rank())
            ? nn::gather_rms_norm(text.float_ND, row.tokens_T, norm_.quant_D, eps)
            : at::Tensor();
    sum.add(float_x, quant_exec_.input(site, x).value, weights_TK.square().sum(-1).sqrt());
  }
  GroupedStatistics result = sum.take(norm_.quant_D.size(0), norm_.quant_D.device());
  for (InputStatistics& group : result) {
    group.tokens = routed;
    if (cross) {  // kept for the whole block
      group.cross_II = as_factor(group.cross_II, context_.type);
    }
  }
  return result;
}

void FeedForwardHalf::run_unit(const std::string& name, int64_t index, const nn::Mlp& mlp,
                               const std::vector<TokenRows>& rows,
                               const GroupedStatistics* block_sum) {
  const int owner = static_cast<int>(index % ranks_.size());
  outputs_.add(name, owner, rows, [&](const TakeOutputs& take) {
    const TokenSource source = token_source(texts_, rows, norm_, model_.spec().rms_norm_eps);
    const UnitResult result = units_.own(name, {mlp.gate, mlp.up, mlp.down}, [&] {
      return calibrate_mlp(context_, quant_exec_, mlp, factors_D_, source, block_sum);
    });
    run_mlp(context_, mlp, result, source, take);
  });
}

}  // namespace blockptq
