#include "calibrate/block_calibrator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/system.h"
#include "calibrate/attention_unit.h"
#include "calibrate/mlp_unit.h"
#include "calibrate/routed_tokens.h"
#include "calibrate/shared_outputs.h"
#include "calibrate/shared_work.h"
#include "calibrate/smoothing.h"
#include "calibrate/statistics.h"
#include "nn/norm.h"
#include "quant/algorithms/product.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

/// The sequences of all texts that calibrate, or of all that do not.
SequenceSource sequences_of(const std::vector<TextStates>& texts, bool calibrate) {
  std::vector<std::pair<at::Tensor, at::Tensor>> sequences;
  for (const TextStates& text : texts) {
    for (int64_t c = 0; text.calibrate == calibrate && c < text.float_CLD.size(0); ++c) {
      sequences.emplace_back(text.float_CLD[c], text.quant_CLD[c]);
    }
  }
  const auto count = static_cast<int64_t>(sequences.size());
  return {count, [sequences](int64_t c) { return sequences[c].first; },
          [sequences](int64_t c) { return sequences[c].second; }};
}

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

nn::Routing route(const nn::Router& router, const at::Tensor& states_ND, const at::Tensor& norm_D,
                  double eps, int64_t slice_tokens) {
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

BlockCalibrator::BlockCalibrator(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                                 const Model& model, nn::AttentionOptions attention,
                                 int64_t slice_tokens, UnitHooks hooks, Ranks& ranks)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      attention_(attention),
      slice_tokens_(slice_tokens),
      hooks_(std::move(hooks)),
      ranks_(ranks) {}

UnitResult BlockCalibrator::calibrated(int64_t block, const std::string& unit,
                                       const std::function<UnitResult()>& calibrate) const {
  const auto start = Clock::now();
  UnitResult result = calibrate();
  result.report.block = block;
  result.report.unit = unit;
  result.report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

/// The outcome of `unit`, found or made.
UnitResult BlockCalibrator::make_unit(int64_t block, const std::string& unit,
                                      const std::vector<Weight>& tensors,
                                      const std::function<UnitResult()>& calibrate) const {
  if (auto found = hooks_.find(unit, tensors)) {
    return std::move(*found);
  }
  UnitResult result = calibrated(block, unit, calibrate);
  hooks_.finished(result);
  return result;
}

/// The same for a unit that all ranks need; rank 0 looks for it, and leaves it for the others.
UnitResult BlockCalibrator::share_unit(Makers makers, int64_t block, const std::string& unit,
                                       const std::vector<Weight>& tensors,
                                       const std::function<UnitResult()>& calibrate) const {
  const bool first = ranks_.rank() == 0;
  std::optional<UnitResult> result = first ? hooks_.find(unit, tensors) : std::nullopt;
  bool found = result.has_value();
  broadcast(ranks_, Channel::states, &found, sizeof(found), 0);
  if (!found && (first || makers == Makers::all)) {
    result = calibrated(block, unit, calibrate);
    if (first) {
      hooks_.finished(*result);
    }
  }
  meet(ranks_);
  if (!result) {
    result = hooks_.find(unit, tensors);
    BPTQ_ASSERT(result.has_value());
  }
  meet(ranks_);  // nobody removes what the others still read
  return std::move(*result);
}

/// Statistics of the experts' input over all of them: the sum of what each expert would sum up.
/// `expert`: the first one, on the rank that holds it. Two ranks make one matrix each.
GroupedStatistics BlockCalibrator::block_statistics(const std::vector<FeedForwardText>& texts,
                                                    const nn::Mlp* expert,
                                                    const at::Tensor& norm_D) const {
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
  for (const TokenRows& row : all_rows(texts, slice_tokens_)) {
    const FeedForwardText& text = texts[row.text];
    if (!text.calibrate) {
      continue;
    }
    const at::Tensor weights_TK = text.quant_routing.weights_TK.index_select(0, row.tokens_T);
    routed += weights_TK.numel();
    if (!sum.sums(ranks_.rank())) {
      continue;
    }
    check_stop();
    const at::Tensor x = nn::gather_rms_norm(text.quant_ND, row.tokens_T, norm_D, eps);
    sum.add(nn::gather_rms_norm(text.float_ND, row.tokens_T, norm_D, eps),
            quant_exec_.input(site, x).value, weights_TK.square().sum(-1).sqrt());
  }
  GroupedStatistics result = sum.take(norm_D.size(0), norm_D.options());
  for (InputStatistics& group : result) {
    group.tokens = routed;
    if (cross) {  // kept for the whole block
      group.cross_II = as_factor(group.cross_II, context_.type);
    }
  }
  return result;
}

void BlockCalibrator::run(PieceStream& stream, int64_t block,
                          std::vector<TextStates>& texts) const {
  const c10::NoGradGuard no_grad;
  run_attention(stream, block, texts);
  run_feed_forward(stream, block, texts);
}

void BlockCalibrator::run_attention(PieceStream& stream, int64_t block,
                                    std::vector<TextStates>& texts) const {
  AttentionUnit unit(context_, quant_exec_, model_, stream.next(), block, attention_, ranks_);
  AttentionOutputs known;  // of the sequences that calibrate
  const UnitResult result = share_unit(Makers::all, block, "attention", unit.tensors(), [&] {
    return unit.calibrate(sequences_of(texts, /*calibrate=*/true), known);
  });
  hooks_.passed("attention");
  const NormedAttention exact = unit.float_attention();
  const NormedAttention quantized = unit.quantized_attention(result);
  const FakeQuantExec quant_exec(context_.recipe, input_factors(result));
  for (const bool calibrate : {true, false}) {
    const SequenceSource sequences = sequences_of(texts, calibrate);
    for (int64_t c = 0; c < sequences.sequences; ++c) {
      if (!ranks_.does(c)) {
        continue;
      }
      check_stop();
      const at::Tensor float_LD = sequences.float_LD(c);
      const at::Tensor quant_LD = sequences.quant_LD(c);
      float_LD.add_(calibrate && !known.float_LD.empty()
                        ? known.float_LD[c]
                        : exact.forward(context_.float_exec, float_LD));
      quant_LD.add_(calibrate && !known.quant_LD.empty() ? known.quant_LD[c]
                                                         : quantized.forward(quant_exec, quant_LD));
    }
    for (int64_t c = 0; c < sequences.sequences; ++c) {
      const int owner = static_cast<int>(c % ranks_.size());
      broadcast_tensor(ranks_, sequences.float_LD(c), owner);
      broadcast_tensor(ranks_, sequences.quant_LD(c), owner);
    }
  }
}

/// Smooths what leaves the norm in front of the MLPs in `piece`; `sample` stands for all that read
/// it. The outcome: the norm, and what reads it beside MLPs.
UnitResult BlockCalibrator::calibrate_norm(const Piece& piece, const nn::Mlp& sample, int64_t block,
                                           const std::vector<FeedForwardText>& states) const {
  const FeedForward half = model_.feed_forward(piece, block);
  const ScalePoint& point = half.scale_point;
  UnitResult result = share_unit(Makers::first, block, "norm", norm_tensors(piece, point), [&] {
    const std::vector<TokenRows> rows = all_rows(states, slice_tokens_);
    const TokenSource source =
        token_source(states, rows, {half.norm_D, half.norm_D}, model_.spec().rms_norm_eps);
    UnitResult fresh;
    fresh.report.tokens = source.tokens;
    if (context_.smooths()) {
      const at::Tensor factors_D =
          smooth_input(context_, quant_exec_, sample, source, fresh.report);
      if (factors_D.defined()) {
        note_fold(piece, point, factors_D, fresh.targets);
      }
    }
    keep_rotated(context_, norm_tensors(piece, point), fresh);
    return fresh;
  });
  hooks_.passed("norm");
  return result;
}

void BlockCalibrator::run_feed_forward(PieceStream& stream, int64_t block,
                                       std::vector<TextStates>& texts) const {
  const double eps = model_.spec().rms_norm_eps;
  std::vector<FeedForwardText> states = feed_forward_texts(texts);
  NormWeights norm;
  at::Tensor factors_D;  // by which the quantized model's norm is divided
  SharedOutputs outputs(ranks_, states, hooks_.passed);
  const auto run_unit = [&](const std::string& name, const nn::Mlp& mlp,
                            const std::vector<TokenRows>& rows, const GroupedStatistics* block_sum,
                            const TakeOutputs& take) {
    const TokenSource source = token_source(states, rows, norm, eps);
    const UnitResult result = make_unit(block, name, {mlp.gate, mlp.up, mlp.down}, [&] {
      return calibrate_mlp(context_, quant_exec_, mlp, factors_D, source, block_sum);
    });
    run_mlp(context_, mlp, result, source, take);
  };
  const int64_t experts = model_.experts(block);
  std::optional<Piece> first_expert;  // stands for all where no shared expert does
  {
    Piece piece = stream.next();
    const auto mlp = model_.feed_forward(piece, block).mlp;
    if (!mlp && ranks_.does(0)) {
      first_expert = stream.next();
    }
    UnitResult norm_unit;
    if (context_.transforms()) {
      const nn::Mlp sample = mlp            ? *mlp
                             : first_expert ? model_.expert(*first_expert, block, 0)
                                            : nn::Mlp{};
      norm_unit = calibrate_norm(piece, sample, block, states);
    }
    const FeedForward feed_forward = model_.feed_forward(piece, block);
    const ScalePoint& point = feed_forward.scale_point;
    Piece quantized_piece = piece;
    for (const Weight& tensor : norm_tensors(piece, point)) {
      quantized_piece.replace(quantized_weight(context_, tensor, norm_unit));
    }
    const FeedForward quantized = model_.feed_forward(quantized_piece, block);
    if (const auto found = norm_unit.targets.find(point.producer);
        found != norm_unit.targets.end()) {
      factors_D = found->second.folded().rows_O.to(feed_forward.norm_D.device());
    }
    norm = {feed_forward.norm_D.clone(), quantized.norm_D.clone()};
    if (feed_forward.mlp) {
      const std::string name = feed_forward.router ? "shared_experts" : "mlp";
      const std::vector<TokenRows> rows = all_rows(states, slice_tokens_);
      outputs.add(
          name, static_cast<int>(experts % ranks_.size()), rows,
          [&](const TakeOutputs& take) { run_unit(name, *feed_forward.mlp, rows, nullptr, take); });
    }
    for (FeedForwardText& text : states) {
      if (feed_forward.router) {
        text.float_routing =
            route(*feed_forward.router, text.float_ND, norm.float_D, eps, slice_tokens_);
        text.quant_routing =
            route(*quantized.router, text.quant_ND, norm.quant_D, eps, slice_tokens_);
      }
    }
  }
  GroupedStatistics block_sum;
  for (int64_t e = 0; e < experts; ++e) {
    const bool mine = ranks_.does(e);
    Piece piece;
    nn::Mlp mlp;
    if (mine) {
      piece = first_expert ? *std::exchange(first_expert, std::nullopt) : stream.next();
      mlp = model_.expert(piece, block, e);
    }
    if (e == 0) {
      block_sum = block_statistics(states, mine ? &mlp : nullptr, norm.quant_D);
    }
    const std::string name = fmt::format("expert {}", e);
    const std::vector<TokenRows> rows = expert_rows(states, e, slice_tokens_);
    outputs.add(name, static_cast<int>(e % ranks_.size()), rows,
                [&](const TakeOutputs& take) { run_unit(name, mlp, rows, &block_sum, take); });
  }
  outputs.finish();
  for (size_t i = 0; i < texts.size(); ++i) {
    states[i].float_ND.add_(states[i].float_out_ND);
    states[i].quant_ND.add_(states[i].quant_out_ND);
  }
}

}  // namespace blockptq
