#include "calibrate/mlp_unit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/system.h"
#include "calibrate/refinement.h"
#include "calibrate/smoothing.h"
#include "calibrate/statistics.h"
#include "quant/algorithms/shrink.h"
#include "quant/transforms/smooth.h"

namespace blockptq {
namespace {

/// Tokens per input feature, of the block's average, that every expert is given on top of its own
/// (docs/rounding.md).
constexpr double kShrink = 0.5;

/// x divided by factors over the features; undefined: 1.
at::Tensor divided(const at::Tensor& x_TF, const at::Tensor& factors_F) {
  return factors_F.defined() ? fold_into_columns(x_TF, 1 / factors_F) : x_TF;
}

nn::Mlp quantized_mlp(const CalibrationContext& context, const nn::Mlp& mlp,
                      const UnitResult& result) {
  return {quantized_weight(context, mlp.gate, result), quantized_weight(context, mlp.up, result),
          quantized_weight(context, mlp.down, result)};
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

RelativeError error_of(const CalibrationContext& context, const nn::Mlp& mlp,
                       const UnitResult& result, const TokenSource& tokens) {
  const nn::Mlp quantized = quantized_mlp(context, mlp, result);
  const FakeQuantExec quant_exec(context.recipe, input_factors(result));
  RelativeError error;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    error.add(quantized.forward(quant_exec, slice.quant_TD),
              mlp.forward(context.float_exec, slice.float_TD), slice.weight_T);
  });
  return error;
}

/// Some of a unit's tokens, with what the float model makes of them.
class Trial {
 public:
  /// factors_D: as calibrate_mlp.
  Trial(const CalibrationContext& context, const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
        const at::Tensor& factors_D, const TokenSource& tokens)
      : context_(context), quant_exec_(quant_exec), mlp_(mlp) {
    const int64_t wanted =
        balanced_tokens(std::max(mlp.down.value.size(0), mlp.down.value.size(1)));
    const int64_t step = std::max<int64_t>(1, tokens.tokens / wanted);
    for_calibration(tokens, [&](const TokenSlice& slice) {
      const auto some = [&](const at::Tensor& rows) {
        return rows.defined() ? rows.slice(0, 0, c10::nullopt, step).contiguous() : rows;
      };
      const at::Tensor x_TD = some(slice.quant_TD);
      const Activation hidden = mlp.hidden(
          context.float_exec, factors_D.defined() ? fold_into_columns(x_TD, factors_D) : x_TD);
      slices_.push_back(
          {x_TD, hidden.value, context.float_exec.linear(mlp.down, hidden), some(slice.weight_T)});
    });
  }

  int64_t tokens() const {
    int64_t sum = 0;
    for (const Slice& slice : slices_) {
      sum += slice.x_TD.size(0);
    }
    return sum;
  }
  /// What gate and up see, and what down sees.
  BalancedInput input() const { return balanced(mlp_.gate, &Slice::x_TD); }
  BalancedInput hidden() const { return balanced(mlp_.down, &Slice::hidden_TI); }

  /// Of plain rounding of `targets`, on the tokens divided by more factors.
  double loss(const UnitTargets& targets, const at::Tensor& factors_D = {}) const {
    const nn::Mlp rounded = quantized_mlp(
        context_, mlp_, plain_rounding(context_, {mlp_.gate, mlp_.up, mlp_.down}, targets));
    RelativeError error;
    for (const Slice& slice : slices_) {
      error.add(rounded.forward(quant_exec_, divided(slice.x_TD, factors_D)), slice.y_TD,
                slice.weight_T);
    }
    return error.value();
  }

 private:
  struct Slice {
    at::Tensor x_TD;
    at::Tensor hidden_TI;
    at::Tensor y_TD;
    at::Tensor weight_T;
  };

  BalancedInput balanced(const Weight& reader, at::Tensor Slice::*rows) const {
    std::vector<at::Tensor> all;
    std::vector<at::Tensor> weights;
    for (const Slice& slice : slices_) {
      all.push_back(slice.*rows);
      if (slice.weight_T.defined()) {
        weights.push_back(slice.weight_T.square());
      }
    }
    return {at::cat(all), weights.empty() ? at::Tensor() : at::cat(weights),
            context_.recipe.linear(reader.role, reader.name).activation_bits};
  }

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const nn::Mlp& mlp_;
  std::vector<Slice> slices_;
};

/// The targets of `mlp` on an input divided by factors_D.
UnitTargets input_targets(const nn::Mlp& mlp, const at::Tensor& factors_D) {
  return {{mlp.gate.name, {mlp.gate.value, {{}, factors_D}}},
          {mlp.up.name, {mlp.up.value, {{}, factors_D}}},
          {mlp.down.name, {mlp.down.value}}};
}

/// `targets` with factors between up and down.
UnitTargets hidden_targets(const nn::Mlp& mlp, UnitTargets targets, const at::Tensor& factors_I) {
  TargetWeight& up = targets.at(mlp.up.name);
  up = {up.value(), {factors_I, up.folded().columns_I}};
  targets.at(mlp.down.name) = {mlp.down.value, {{}, factors_I}};
  return targets;
}

/// Factors (fp32 [I]) between up and down; undefined: none that help.
at::Tensor smooth_hidden(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                         const nn::Mlp& mlp, const at::Tensor& factors_D,
                         const TokenSource& tokens) {
  const auto quantized = [&](const Weight& weight) {
    return context.recipe.quantizes(weight.role, weight.name);
  };
  const bool integers = quantized(mlp.up) && quantized(mlp.down);
  const Smoothing wanted = context.recipe.transforms().smooth;
  if (wanted == Smoothing::none || (wanted == Smoothing::hidden && !integers)) {
    return {};
  }
  const Trial trial(context, quant_exec, mlp, factors_D, tokens);
  const UnitTargets targets = input_targets(mlp, factors_D);
  double least = trial.loss(targets);
  return choose_factors(
      integers ? Factors::any : Factors::powers_of_two,
      balance_factors(trial.hidden(), {balanced_reader(context.recipe, mlp.down)}),
      [&](const at::Tensor& factors_I) {
        return trial.loss(hidden_targets(mlp, targets, factors_I));
      },
      least);
}

/// Sums over what enters gate and up.
GroupedStatistics input_statistics(const CalibrationContext& context,
                                   const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
                                   const at::Tensor& factors_D, const TokenSource& tokens) {
  StatisticsSum input(/*hessian=*/true, needs_cross_sums(context, {mlp.gate, mlp.up}));
  for_calibration(tokens, [&](const TokenSlice& slice) {
    const Activation x = quant_exec.input(Site::before(mlp.gate), slice.quant_TD);
    input.add(divided(slice.float_TD, factors_D), x.value, slice.weight_T);
  });
  return input.take();
}

/// Sums over what enters `down`: what the float and the quantized gate and up make of the tokens,
/// divided by factors_I.
GroupedStatistics hidden_statistics(const CalibrationContext& context,
                                    const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
                                    const at::Tensor& factors_I, const TokenSource& tokens,
                                    const UnitResult& result) {
  const nn::Mlp half{quantized_weight(context, mlp.gate, result),
                     quantized_weight(context, mlp.up, result),
                     {mlp.down.name, mlp.down.role, {}}};  // is not run
  StatisticsSum hidden(/*hessian=*/true, needs_cross_sums(context, {mlp.down}));
  for_calibration(tokens, [&](const TokenSlice& slice) {
    hidden.add(divided(mlp.hidden(context.float_exec, slice.float_TD).value, factors_I),
               half.hidden(quant_exec, slice.quant_TD).value, slice.weight_T);
  });
  return hidden.take();
}

}  // namespace

at::Tensor smooth_input(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                        const nn::Mlp& mlp, const TokenSource& tokens, UnitReport& report) {
  const Trial trial(context, quant_exec, mlp, {}, tokens);
  report.tokens = trial.tokens();
  if (report.tokens == 0) {
    return {};
  }
  report.loss_before = report.loss_after = trial.loss({});
  return choose_factors(
      Factors::powers_of_two,
      balance_factors(trial.input(), {balanced_reader(context.recipe, mlp.gate),
                                      balanced_reader(context.recipe, mlp.up)}),
      [&](const at::Tensor& factors_D) {
        return trial.loss(input_targets(mlp, factors_D), factors_D);
      },
      report.loss_after);
}

UnitResult calibrate_mlp(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                         const nn::Mlp& mlp, const at::Tensor& factors_D, const TokenSource& tokens,
                         const GroupedStatistics* block) {
  const std::vector<Weight> weights{mlp.gate, mlp.up, mlp.down};
  const auto plain = [&] {
    UnitResult rounded = plain_rounding(context, weights, input_targets(mlp, factors_D));
    keep_rotated(context, weights, rounded);
    return rounded;
  };
  UnitResult result = plain();
  if (result.weights.empty()) {
    result.report.tokens = tokens.tokens;
    return result;
  }
  const RelativeError before = error_of(context, mlp, result, tokens);
  result.report.tokens = before.tokens();
  if (result.report.tokens == 0) {
    result.report.fallback = "no tokens";
    if (block != nullptr) {
      choose_codes(context, {mlp.gate, mlp.up}, shrink({}, *block, kShrink), result);
      result.report.fallback = "no tokens: down_proj by plain rounding";
    }
    return result;
  }
  result.weights.clear();
  const at::Tensor factors_I = smooth_hidden(context, quant_exec, mlp, factors_D, tokens);
  if (factors_I.defined()) {
    result.targets = hidden_targets(mlp, result.targets, factors_I);
  }
  GroupedStatistics input = input_statistics(context, quant_exec, mlp, factors_D, tokens);
  choose_codes(context, {mlp.gate, mlp.up},
               block == nullptr ? std::move(input) : shrink(std::move(input), *block, kShrink),
               result);
  choose_codes(context, {mlp.down},
               hidden_statistics(context, quant_exec, mlp, factors_I, tokens, result), result);
  refine(context, quant_exec, mlp, tokens, result);
  keep_rotated(context, weights, result);

  keep_better(before.value(), error_of(context, mlp, result, tokens).value(), plain, result);
  return result;
}

void run_mlp(const CalibrationContext& context, const nn::Mlp& mlp, const UnitResult& result,
             const TokenSource& tokens, const TakeOutputs& take) {
  const FakeQuantExec quant_exec(context.recipe, input_factors(result));
  const nn::Mlp quantized = quantized_mlp(context, mlp, result);
  for (int64_t i = 0; i < tokens.slices; ++i) {
    check_stop();
    const TokenSlice slice = tokens.slice(i);
    if (slice.float_TD.size(0) > 0) {
      take(i, mlp.forward(context.float_exec, slice.float_TD),
           quantized.forward(quant_exec, slice.quant_TD));
    }
  }
}

}  // namespace blockptq
