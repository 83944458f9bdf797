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

/// `mlp` with what a result has in the place of its weights.
nn::Mlp resulting_mlp(const CalibrationContext& context, nn::Mlp mlp, const UnitResult& result) {
  for (Weight* weight : {&mlp.gate, &mlp.up, &mlp.down}) {
    if (const auto found = result.transformed.find(weight->name);
        found != result.transformed.end()) {
      weight->value = found->second;
    }
  }
  return quantized_mlp(context, mlp, result.weights);
}

double loss(const CalibrationContext& context, const nn::Mlp& mlp, const UnitResult& result,
            const TokenSource& tokens) {
  const nn::Mlp exact = float_mlp(context, mlp);
  const nn::Mlp quantized = resulting_mlp(context, mlp, result);
  const FakeQuantExec quant_exec(context.recipe, input_factors(result));
  RelativeError error;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    error.add(quantized.forward(quant_exec, slice.quant_TD),
              exact.forward(context.float_exec, slice.float_TD), slice.weight_T);
  });
  return error.value();
}

/// Some of a unit's tokens, with what the float model makes of them.
class Trial {
 public:
  Trial(const CalibrationContext& context, const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
        const TokenSource& tokens)
      : context_(context), quant_exec_(quant_exec) {
    const nn::Mlp exact = float_mlp(context, mlp);
    const int64_t wanted =
        balanced_tokens(std::max(mlp.down.value.size(0), mlp.down.value.size(1)));
    const int64_t step = std::max<int64_t>(1, tokens.tokens / wanted);
    for_calibration(tokens, [&](const TokenSlice& slice) {
      const auto some = [&](const at::Tensor& rows) {
        return rows.defined() ? rows.slice(0, 0, c10::nullopt, step).contiguous() : rows;
      };
      const at::Tensor x_TD = some(slice.quant_TD);
      const Activation hidden = exact.hidden(context.float_exec, x_TD);
      slices_.push_back({x_TD, hidden.value, context.float_exec.linear(exact.down, hidden),
                         some(slice.weight_T)});
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
  BalancedInput input(const Weight& gate) const { return balanced(gate, &Slice::x_TD); }
  BalancedInput hidden(const Weight& down) const { return balanced(down, &Slice::hidden_TI); }

  /// Of `mlp` rounded to nearest, on its input divided by factors_D.
  double loss(const nn::Mlp& mlp, const at::Tensor& factors_D = {}) const {
    const nn::Mlp rounded =
        resulting_mlp(context_, mlp, plain_rounding(context_, {mlp.gate, mlp.up, mlp.down}));
    RelativeError error;
    for (const Slice& slice : slices_) {
      const at::Tensor x_TD =
          factors_D.defined() ? fold_into_columns(slice.x_TD, 1 / factors_D) : slice.x_TD;
      error.add(rounded.forward(quant_exec_, x_TD), slice.y_TD, slice.weight_T);
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
  std::vector<Slice> slices_;
};

/// `mlp` with factors between up and down, where they help; `result` notes them.
nn::Mlp smooth_hidden(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                      nn::Mlp mlp, const TokenSource& tokens, UnitResult& result) {
  const auto quantized = [&](const Weight& weight) {
    return context.recipe.quantizes(weight.role, weight.name);
  };
  const bool integers = quantized(mlp.up) && quantized(mlp.down);
  const Smoothing wanted = context.recipe.transforms().smooth;
  if (wanted == Smoothing::none || (wanted == Smoothing::hidden && !integers)) {
    return mlp;
  }
  const Trial trial(context, quant_exec, mlp, tokens);
  const auto folded = [&](const at::Tensor& factors_I) {
    nn::Mlp smooth = mlp;
    smooth.up.value = fold_into_rows(mlp.up.value, factors_I);
    smooth.down.value = fold_into_columns(mlp.down.value, factors_I);
    return smooth;
  };
  const Factors kind = integers ? Factors::any : Factors::powers_of_two;
  double least = trial.loss(mlp);
  const at::Tensor factors_I = choose_factors(
      kind, balance_factors(trial.hidden(mlp.down), {balanced_reader(context.recipe, mlp.down)}),
      [&](const at::Tensor& factors) { return trial.loss(folded(factors)); }, least);
  if (!factors_I.defined()) {
    return mlp;
  }
  if (integers) {
    result.folded[mlp.up.name] = {factors_I, {}};
    result.folded[mlp.down.name] = {{}, factors_I};
  }
  return folded(factors_I);
}

/// Sums over what enters `down`: what the float and the quantized gate and up make of the tokens.
GroupedStatistics hidden_statistics(const CalibrationContext& context,
                                    const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
                                    const TokenSource& tokens, const UnitResult& result) {
  const Weight down{mlp.down.name, mlp.down.role, {}};  // is not run
  const nn::Mlp exact{float_weight(context, mlp.gate), float_weight(context, mlp.up), down};
  const nn::Mlp half{quantized_weight(context, mlp.gate, result.weights),
                     quantized_weight(context, mlp.up, result.weights), down};
  StatisticsSum hidden;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    hidden.add(exact.hidden(context.float_exec, slice.float_TD).value,
               half.hidden(quant_exec, slice.quant_TD).value, slice.weight_T);
  });
  return hidden.take();
}

}  // namespace

at::Tensor smooth_input(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                        const nn::Mlp& mlp, const TokenSource& tokens, UnitReport& report) {
  const Trial trial(context, quant_exec, mlp, tokens);
  report.tokens = trial.tokens();
  if (report.tokens == 0) {
    return {};
  }
  report.loss_before = report.loss_after = trial.loss(mlp);
  return choose_factors(
      Factors::powers_of_two,
      balance_factors(trial.input(mlp.gate), {balanced_reader(context.recipe, mlp.gate),
                                              balanced_reader(context.recipe, mlp.up)}),
      [&](const at::Tensor& factors_D) {
        scale_input(mlp, factors_D);
        const double found = trial.loss(mlp, factors_D);
        scale_input(mlp, 1 / factors_D);  // powers of two: as it was
        return found;
      },
      report.loss_after);
}

void scale_input(const nn::Mlp& mlp, const at::Tensor& factors_D) {
  mlp.gate.value.mul_(factors_D);
  mlp.up.value.mul_(factors_D);
}

UnitResult calibrate_mlp(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                         const nn::Mlp& mlp, const TokenSource& tokens,
                         const GroupedStatistics* block) {
  const auto plain = [&] { return plain_rounding(context, {mlp.gate, mlp.up, mlp.down}); };
  UnitResult result = plain();
  if (result.weights.empty()) {
    for_calibration(
        tokens, [&](const TokenSlice& slice) { result.report.tokens += slice.quant_TD.size(0); });
    return result;
  }
  StatisticsSum input;
  for_calibration(tokens, [&](const TokenSlice& slice) {
    const Activation x = quant_exec.input(Site::before(mlp.gate), slice.quant_TD);
    input.add(slice.float_TD, x.value, slice.weight_T);
  });
  result.report.tokens = input.tokens();
  if (result.report.tokens == 0) {
    result.report.fallback = "no tokens";
    if (block != nullptr) {
      choose_codes(context, {mlp.gate, mlp.up}, shrink(input.take(), *block, kShrink),
                   result.weights);
      result.report.fallback = "no tokens: down_proj by plain rounding";
    }
    return result;
  }
  const double before = loss(context, mlp, result, tokens);
  result.weights.clear();
  const nn::Mlp target = smooth_hidden(context, quant_exec, mlp, tokens, result);
  result.targets = {target.gate, target.up, target.down};
  choose_codes(context, {target.gate, target.up},
               block == nullptr ? input.take() : shrink(input.take(), *block, kShrink),
               result.weights);
  choose_codes(context, {target.down},
               hidden_statistics(context, quant_exec, target, tokens, result), result.weights);
  refine(context, quant_exec, target, tokens, result);

  keep_better(before, loss(context, mlp, result, tokens), plain, result);
  return result;
}

void run_mlp(const CalibrationContext& context, const nn::Mlp& mlp, const UnitResult& result,
             const TokenSource& tokens, const TakeOutputs& take) {
  const FakeQuantExec quant_exec(context.recipe, input_factors(result));
  const nn::Mlp exact = float_mlp(context, mlp);
  const nn::Mlp quantized = resulting_mlp(context, mlp, result);
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
