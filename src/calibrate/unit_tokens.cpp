#include "calibrate/unit_tokens.h"

#include <ATen/ATen.h>

#include <vector>

#include "base/system.h"

namespace blockptq {

std::optional<UnitTokens> gather_tokens(const CalibrationContext& context,
                                        const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
                                        const UnitTargets& targets, const TokenSource& tokens,
                                        int64_t max_tokens) {
  constexpr int64_t kMinTokens = 64;
  if (tokens.tokens < kMinTokens) {
    return std::nullopt;
  }
  const int64_t step = (tokens.tokens + max_tokens - 1) / max_tokens;
  const auto up = targets.find(mlp.up.name);
  const at::Tensor factors_I = up == targets.end() ? at::Tensor() : up->second.folded().rows_O;
  std::vector<at::Tensor> x;
  std::vector<at::Tensor> h;
  std::vector<at::Tensor> y;
  std::vector<at::Tensor> weight;
  for (int64_t i = 0; i < tokens.slices; ++i) {
    check_stop();
    const TokenSlice slice = tokens.slice(i);
    if (!slice.calibrate || slice.quant_TD.size(0) == 0) {
      continue;
    }
    const auto some = [&](const at::Tensor& all) {
      return all.slice(0, 0, c10::nullopt, step).contiguous();
    };
    x.push_back(
        quant_exec.input(Site::before(mlp.gate), some(slice.quant_TD)).value.to(at::kFloat));
    const Activation hidden = mlp.hidden(context.float_exec, some(slice.float_TD));
    h.push_back(hidden.value.to(at::kFloat));
    if (factors_I.defined()) {
      h.back() = h.back() / factors_I;
    }
    y.push_back(context.float_exec.linear(mlp.down, hidden).to(at::kFloat));
    weight.push_back(slice.weight_T.defined()
                         ? some(slice.weight_T).square().unsqueeze(1)
                         : at::ones({x.back().size(0), 1}, y.back().options()));
  }
  return UnitTokens{at::cat(x), at::cat(h), at::cat(y), at::cat(weight)};
}

at::Tensor current_value(const Weight& weight, const UnitResult& result) {
  if (const auto chosen = result.weights.find(weight.name); chosen != result.weights.end()) {
    return chosen->second.dequantize(at::kFloat);
  }
  const auto target = result.targets.find(weight.name);
  return target == result.targets.end() ? weight.value.to(at::kFloat) : target->second.whole();
}

at::Tensor current_product(const at::Tensor& x_TI, const Weight& weight, const UnitResult& result) {
  if (const auto chosen = result.weights.find(weight.name); chosen != result.weights.end()) {
    const QTensor& q = chosen->second;
    return dequantized_linear(x_TI, as_int8(q));
  }
  return at::linear(x_TI, current_value(weight, result));
}

}  // namespace blockptq
