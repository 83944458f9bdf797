#include "calibrate/block_calibrator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/system.h"
#include "calibrate/attention_unit.h"
#include "calibrate/mlp_unit.h"
#include "calibrate/routed_tokens.h"
#include "calibrate/smoothing.h"
#include "calibrate/statistics.h"
#include "nn/norm.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

/// The outcome of `unit`, found or made.
UnitResult finish_unit(const UnitHooks& hooks, int64_t block, const std::string& unit,
                       const std::vector<Weight>& weights,
                       const std::function<UnitResult()>& calibrate) {
  if (auto found = hooks.find(unit, weights)) {
    hooks.finished(*found, /*fresh=*/false);
    return std::move(*found);
  }
  const auto start = Clock::now();
  UnitResult result = calibrate();
  result.report.block = block;
  result.report.unit = unit;
  result.report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  hooks.finished(result, /*fresh=*/true);
  return result;
}

/// The sequences of all texts that calibrate.
SequenceSource calibration_sequences(const std::vector<TextStates>& texts) {
  std::vector<std::pair<at::Tensor, at::Tensor>> sequences;
  for (const TextStates& text : texts) {
    for (int64_t c = 0; text.calibrate && c < text.float_CLD.size(0); ++c) {
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

/// Statistics of the experts' input over all of them: the sum of what each expert would sum up.
InputStatistics block_statistics(const FakeQuantExec& quant_exec, const Site& site,
                                 const std::vector<FeedForwardText>& texts,
                                 const at::Tensor& norm_D, double eps, int64_t slice_tokens) {
  StatisticsSum sum;
  int64_t tokens = 0;
  for (const TokenRows& row : all_rows(texts, slice_tokens)) {
    const FeedForwardText& text = texts[row.text];
    if (!text.calibrate) {
      continue;
    }
    check_stop();
    const at::Tensor weights_TK = text.quant_routing.weights_TK.index_select(0, row.tokens_T);
    const at::Tensor x = nn::gather_rms_norm(text.quant_ND, row.tokens_T, norm_D, eps);
    sum.add(nn::gather_rms_norm(text.float_ND, row.tokens_T, norm_D, eps),
            quant_exec.input(site, x).value, weights_TK.square().sum(-1).sqrt());
    tokens += weights_TK.numel();
  }
  InputStatistics result = sum.result();
  result.tokens = tokens;
  return result;
}

}  // namespace

BlockCalibrator::BlockCalibrator(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                                 const Model& model, nn::AttentionOptions attention,
                                 int64_t slice_tokens, UnitHooks hooks)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      attention_(attention),
      slice_tokens_(slice_tokens),
      hooks_(std::move(hooks)) {}

void BlockCalibrator::run(PieceStream& stream, int64_t block,
                          std::vector<TextStates>& texts) const {
  const c10::NoGradGuard no_grad;
  run_attention(stream, block, texts);
  run_feed_forward(stream, block, texts);
}

void BlockCalibrator::run_attention(PieceStream& stream, int64_t block,
                                    std::vector<TextStates>& texts) const {
  const AttentionUnit unit(context_, quant_exec_, model_, stream.next(), block, attention_);
  const UnitResult result = finish_unit(hooks_, block, "attention", unit.weights(), [&] {
    return unit.calibrate(calibration_sequences(texts));
  });
  const NormedAttention exact = unit.float_attention();
  const NormedAttention quantized = unit.quantized_attention(result);
  const FakeQuantExec quant_exec(context_.recipe, input_factors(result));
  for (TextStates& text : texts) {
    for (int64_t c = 0; c < text.float_CLD.size(0); ++c) {
      check_stop();
      at::Tensor x = text.float_CLD[c];
      x.add_(exact.forward(context_.float_exec, x));
      x = text.quant_CLD[c];
      x.add_(quantized.forward(quant_exec, x));
    }
  }
}

/// Smooths what leaves the norm in front of the MLPs; `sample` stands for all that read it. Returns
/// the factors, undefined if there are none.
at::Tensor BlockCalibrator::smooth_norm(Piece& piece, const nn::Mlp& sample, int64_t block,
                                        const std::vector<FeedForwardText>& states) const {
  const FeedForward half = model_.feed_forward(piece, block);
  const ScalePoint& point = half.scale_point;
  const auto fold_in = [&](const at::Tensor& factors_D) {
    Piece folded = piece;
    fold(folded, point, factors_D);
    return folded;
  };
  const UnitResult result = finish_unit(hooks_, block, "norm", {}, [&] {
    const std::vector<TokenRows> rows = all_rows(states, slice_tokens_);
    const TokenSource source = token_source(states, rows, half.norm_D, model_.spec().rms_norm_eps);
    UnitResult fresh;
    const at::Tensor factors_D = smooth_input(context_, quant_exec_, sample, source, fresh.report);
    if (factors_D.defined()) {
      const Piece folded = fold_in(factors_D);
      fresh.transformed[point.producer] = folded.tensor(point.producer);
      for (const std::string& reader : point.readers) {
        fresh.transformed[reader] = folded.tensor(reader);
      }
    }
    return fresh;
  });
  const auto norm = result.transformed.find(point.producer);
  if (norm == result.transformed.end()) {
    return {};
  }
  // Powers of two: the quotient is exact.
  const at::Tensor ones_D = at::ones_like(half.norm_D);
  const at::Tensor factors_D =
      at::where(half.norm_D == 0, ones_D, half.norm_D / norm->second.to(ones_D.device()));
  piece = fold_in(factors_D);
  return factors_D;
}

void BlockCalibrator::run_feed_forward(PieceStream& stream, int64_t block,
                                       std::vector<TextStates>& texts) const {
  const double eps = model_.spec().rms_norm_eps;
  std::vector<FeedForwardText> states = feed_forward_texts(texts);
  at::Tensor norm_D;
  at::Tensor factors_D;
  const auto run_unit = [&](const std::string& name, const nn::Mlp& source_mlp,
                            const std::vector<TokenRows>& rows, const InputStatistics* block_sum) {
    const TokenSource source = token_source(states, rows, norm_D, eps);
    const std::vector<Weight> weights{source_mlp.gate, source_mlp.up, source_mlp.down};
    const nn::Mlp mlp = factors_D.defined() ? scale_input(source_mlp, factors_D) : source_mlp;
    const UnitResult result = finish_unit(hooks_, block, name, weights, [&] {
      UnitResult fresh = calibrate_mlp(context_, quant_exec_, mlp, source, block_sum);
      keep_transformed(weights, fresh);
      return fresh;
    });
    run_mlp(context_, mlp, result, source, add_outputs(states, rows));
  };
  std::optional<Piece> first_expert;  // stands for all where no shared expert does
  {
    Piece piece = stream.next();
    const auto mlp = model_.feed_forward(piece, block).mlp;
    if (!mlp) {
      first_expert = stream.next();
    }
    if (!context_.recipe.transforms().smooth_alphas.empty()) {
      factors_D =
          smooth_norm(piece, mlp ? *mlp : model_.expert(*first_expert, block, 0), block, states);
    }
    const FeedForward feed_forward = model_.feed_forward(piece, block);
    norm_D = feed_forward.norm_D.clone();
    if (feed_forward.mlp) {
      run_unit(feed_forward.router ? "shared_experts" : "mlp", *feed_forward.mlp,
               all_rows(states, slice_tokens_), nullptr);
    }
    for (FeedForwardText& text : states) {
      if (feed_forward.router) {
        text.float_routing = route(*feed_forward.router, text.float_ND, norm_D, eps, slice_tokens_);
        text.quant_routing = route(*feed_forward.router, text.quant_ND, norm_D, eps, slice_tokens_);
      }
    }
  }
  InputStatistics block_sum;
  for (int64_t e = 0; e < model_.experts(block); ++e) {
    const Piece piece = first_expert ? *std::exchange(first_expert, std::nullopt) : stream.next();
    const nn::Mlp mlp = model_.expert(piece, block, e);
    if (e == 0) {
      block_sum =
          block_statistics(quant_exec_, Site::before(mlp.gate), states, norm_D, eps, slice_tokens_);
    }
    run_unit(fmt::format("expert {}", e), mlp, expert_rows(states, e, slice_tokens_), &block_sum);
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    states[i].float_ND.add_(states[i].float_out_ND);
    states[i].quant_ND.add_(states[i].quant_out_ND);
  }
}

}  // namespace blockptq
