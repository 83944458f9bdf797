#include "calibrate/mlp_unit.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/system.h"
#include "calibrate/clip_learner.h"
#include "calibrate/statistics.h"
#include "quant/algorithms/shrink.h"

namespace blockptq {
namespace {

/// Tokens per input feature, of the block's average, that every expert is given on top of its own
/// (docs/rounding.md).
constexpr double kShrink = 0.5;

nn::Mlp float_mlp(const CalibrationContext& context, const nn::Mlp& mlp) {
  return {float_weight(context, mlp.gate), float_weight(context, mlp.up),
          float_weight(context, mlp.down)};
}

nn::Mlp quantized_mlp(const CalibrationContext& context, const nn::Mlp& mlp,
                      const std::map<std::string, QTensor>& chosen) {
  return {quantized_weight(context, mlp.gate, chosen), quantized_weight(context, mlp.up, chosen),
          quantized_weight(context, mlp.down, chosen)};
}

void for_calibration(const TokenSource& tokens, const std::function<void(const TokenSlice&)>& use) {
  for (int64_t i = 0; i < tokens.slices; ++i) {
    check_stop();
    const TokenSlice slice = tokens.slice(i);
    if (slice.calibrate && slice.float_TD.size(0) > 0) {
      use(slice);
    }
  }
}

/// Losses of plain rounding and of the chosen integers.
std::pair<double, double> losses(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                                 const nn::Mlp& mlp, const std::map<std::string, QTensor>& nearest,
                                 const UnitResult& result, const TokenSource& tokens) {
  const nn::Mlp exact = float_mlp(context, mlp);
  const nn::Mlp before = quantized_mlp(context, mlp, nearest);
  const nn::Mlp after = quantized_mlp(context, mlp, result.weights);
  const FakeQuantExec after_exec(context.recipe, input_factors(result));
  RelativeError error_before;
  RelativeError error_after;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    const at::Tensor y = exact.forward(context.float_exec, slice.float_TD);
    error_before.add(before.forward(quant_exec, slice.quant_TD), y, slice.weight_T);
    error_after.add(after.forward(after_exec, slice.quant_TD), y, slice.weight_T);
  });
  return {error_before.value(), error_after.value()};
}

}  // namespace

UnitResult calibrate_mlp(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                         const nn::Mlp& mlp, const TokenSource& tokens,
                         const InputStatistics* block) {
  UnitResult result;
  std::map<std::string, QTensor> nearest;
  round_to_nearest(context, {mlp.gate, mlp.up, mlp.down}, nearest);

  StatisticsSum input;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    const Activation x = quant_exec.input(Site::before(mlp.gate), slice.quant_TD);
    input.add(slice.float_TD, x.value, slice.weight_T);
  });
  result.report.tokens = input.result().tokens;
  if (result.report.tokens == 0 && block == nullptr) {
    result.weights = std::move(nearest);
    result.report.fallback = "no tokens";
    return result;
  }
  choose_codes(context, {mlp.gate, mlp.up},
               block == nullptr ? input.result() : shrink(input.result(), *block, kShrink),
               result.weights);
  if (result.report.tokens == 0) {
    result.weights[mlp.down.name] = nearest[mlp.down.name];
    result.report.fallback = "no tokens: down_proj by plain rounding";
    return result;
  }

  const nn::Mlp exact = float_mlp(context, mlp);
  const nn::Mlp half = quantized_mlp(context, mlp, result.weights);
  StatisticsSum hidden;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    hidden.add(exact.hidden(context.float_exec, slice.float_TD).value,
               half.hidden(quant_exec, slice.quant_TD).value, slice.weight_T);
  });
  choose_codes(context, {mlp.down}, hidden.result(), result.weights);
  if (context.learn_clips) {
    learn_clips(context, quant_exec, mlp, tokens, *context.learn_clips, result);
  }

  std::tie(result.report.loss_before, result.report.loss_after) =
      losses(context, quant_exec, mlp, nearest, result, tokens);
  if (result.report.loss_after > result.report.loss_before) {
    result.weights = std::move(nearest);
    result.input_clips.clear();
    result.report.loss_after = result.report.loss_before;
    result.report.fallback = "plain rounding was better";
  }
  return result;
}

void run_mlp(const CalibrationContext& context, const nn::Mlp& mlp, const UnitResult& result,
             const TokenSource& tokens, const TakeOutputs& take) {
  const FakeQuantExec quant_exec(context.recipe, input_factors(result));
  const nn::Mlp exact = float_mlp(context, mlp);
  const nn::Mlp quantized = quantized_mlp(context, mlp, result.weights);
  for (int64_t i = 0; i < tokens.slices; ++i) {
    check_stop();
    const TokenSlice slice = tokens.slice(i);
    if (slice.float_TD.size(0) > 0) {
      take(i, exact.forward(context.float_exec, slice.float_TD),
           quantized.forward(quant_exec, slice.quant_TD));
    }
  }
}

}  // namespace blockptq
