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
    hooks.finished(*found, weights, /*fresh=*/false);
    return std::move(*found);
  }
  const auto start = Clock::now();
  UnitResult result = calibrate();
  result.report.block = block;
  result.report.unit = unit;
  result.report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  hooks.finished(result, weights, /*fresh=*/true);
  return result;
}

/// The sequences of all texts that calibrate, normalised on demand.
SequenceSource calibration_sequences(const std::vector<TextStates>& texts, const at::Tensor& norm_D,
                                     double eps) {
  std::vector<std::pair<at::Tensor, at::Tensor>> sequences;
  for (const TextStates& text : texts) {
    for (int64_t c = 0; text.calibrate && c < text.float_CLD.size(0); ++c) {
      sequences.emplace_back(text.float_CLD[c], text.quant_CLD[c]);
    }
  }
  const auto count = static_cast<int64_t>(sequences.size());
  return {
      count,
      [sequences, norm_D, eps](int64_t c) { return nn::rms_norm(sequences[c].first, norm_D, eps); },
      [sequences, norm_D, eps](int64_t c) {
        return nn::rms_norm(sequences[c].second, norm_D, eps);
      }};
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
  const Piece piece = stream.next();
  const at::Tensor norm_D = model_.attention_norm(piece, block);
  const double eps = model_.spec().rms_norm_eps;
  const AttentionUnit unit(context_, quant_exec_, model_, piece, block, attention_);
  const UnitResult result = finish_unit(hooks_, block, "attention", piece.weights(), [&] {
    return unit.calibrate(calibration_sequences(texts, norm_D, eps));
  });
  const auto exact = unit.float_attention();
  const auto quantized = unit.quantized_attention(result.weights);
  const FakeQuantExec quant_exec(context_.recipe, input_factors(result));
  for (TextStates& text : texts) {
    for (int64_t c = 0; c < text.float_CLD.size(0); ++c) {
      check_stop();
      at::Tensor x = text.float_CLD[c];
      x.add_(exact->forward(context_.float_exec, nn::rms_norm(x, norm_D, eps), attention_));
      x = text.quant_CLD[c];
      x.add_(quantized->forward(quant_exec, nn::rms_norm(x, norm_D, eps), attention_));
    }
  }
}

void BlockCalibrator::run_feed_forward(PieceStream& stream, int64_t block,
                                       std::vector<TextStates>& texts) const {
  const double eps = model_.spec().rms_norm_eps;
  std::vector<FeedForwardText> states = feed_forward_texts(texts);
  at::Tensor norm_D;
  const auto run_unit = [&](const std::string& name, const nn::Mlp& mlp,
                            const std::vector<TokenRows>& rows, const InputStatistics* block_sum) {
    const TokenSource source = token_source(states, rows, norm_D, eps);
    const UnitResult result = finish_unit(hooks_, block, name, {mlp.gate, mlp.up, mlp.down}, [&] {
      return calibrate_mlp(context_, quant_exec_, mlp, source, block_sum);
    });
    run_mlp(context_, mlp, result, source, add_outputs(states, rows));
  };
  {
    const Piece piece = stream.next();
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
    const Piece piece = stream.next();
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
