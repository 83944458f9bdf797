#include "calibrate/clip_learner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "base/system.h"
#include "calibrate/unit_tokens.h"
#include "quant/algorithms/slabs.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

constexpr int kFactors = 10;     // tried per channel and pass
constexpr double kRange = 0.08;  // on both sides of the clip so far
constexpr double kInputStep = 0.02;
constexpr int kInputFactors = 12;

/// One MLP in work, in fp32.
class Learner {
 public:
  Learner(const CalibrationContext& context, const nn::Mlp& mlp, const UnitTokens& tokens,
          UnitResult& result)
      : context_(context), mlp_(mlp), tokens_(tokens), result_(result) {}

  void learn_gate() {
    const at::Tensor up_TI = product(tokens_.x_TD, mlp_.up);
    learn(mlp_.gate, [&](const at::Tensor& w_RD, const Channels& channels) {
      return errors(nn::swiglu(at::linear(tokens_.x_TD, w_RD), channels(up_TI).contiguous()),
                    channels(tokens_.h_TI));
    });
  }
  void learn_up() {
    const at::Tensor gate_TI = at::silu(product(tokens_.x_TD, mlp_.gate));
    learn(mlp_.up, [&](const at::Tensor& w_RD, const Channels& channels) {
      return errors(at::linear(tokens_.x_TD, w_RD).mul_(channels(gate_TI)), channels(tokens_.h_TI));
    });
  }
  void learn_down() {
    const at::Tensor h_TI = down_input(factor_of(result_, mlp_.down));
    learn(mlp_.down, [&](const at::Tensor& w_RI, const Channels& channels) {
      return errors(at::linear(h_TI, w_RI), channels(tokens_.y_TD));
    });
  }
  void learn_down_input() {
    const int bits = input_bits();
    if (bits == kFloatBits) {
      return;
    }
    std::vector<double> sums;
    for (const double factor : tried_input_factors(bits)) {
      check_stop();
      const at::Tensor y_TD = product(down_input(factor), mlp_.down);
      sums.push_back(errors(y_TD, tokens_.y_TD).sum(at::kDouble).item<double>());
    }
    const at::Tensor logit = best_input_clip(sums, bits);
    if (logit.defined()) {
      result_.input_clips[mlp_.down.name] = logit;
    }
  }

 private:
  /// The columns of [T, O] that some channels make.
  using Channels = std::function<at::Tensor(const at::Tensor&)>;
  /// Errors of channels whose weights are w_RI: [R].
  using ErrorsOf = std::function<at::Tensor(const at::Tensor& w_RI, const Channels& channels)>;

  at::Tensor product(const at::Tensor& x_TI, const Weight& weight) const {
    return current_product(x_TI, weight, result_);
  }
  int input_bits() const {
    return context_.recipe.linear(mlp_.down.role, mlp_.down.name).activation_bits;
  }
  /// Of the quantized gate and up, quantized.
  at::Tensor down_input(double factor) const {
    const at::Tensor h_TI =
        nn::swiglu(product(tokens_.x_TD, mlp_.gate), product(tokens_.x_TD, mlp_.up));
    return input_bits() == kFloatBits ? h_TI : fake_quantize(h_TI, input_bits(), 0, factor);
  }
  /// Per column; overwrites y.
  at::Tensor errors(const at::Tensor& y_TN, const at::Tensor& wanted_TN) const {
    return y_TN.sub_(wanted_TN).square_().mul_(tokens_.weight_T1).sum(0);
  }
  void learn(const Weight& weight, const ErrorsOf& errors_of);

  const CalibrationContext& context_;
  const nn::Mlp& mlp_;
  const UnitTokens& tokens_;
  UnitResult& result_;
};

/// The integers of `weight` under the best factor of every channel.
void Learner::learn(const Weight& weight, const ErrorsOf& errors_of) {
  const auto chosen = result_.weights.find(weight.name);
  if (chosen == result_.weights.end()) {
    return;
  }
  const int bits = chosen->second.bits;
  const at::Tensor scales_O = chosen->second.scales_O;
  chosen->second = quantize_slabs(
      result_.targets.at(weight.name), bits, [&](const at::Tensor& w_RI, const Slab& slab) {
        const auto channels = [&](const at::Tensor& x_TO) {
          return x_TO.narrow(1, slab.row, slab.count);
        };
        const at::Tensor full_R = weight_scales(w_RI, bits);
        const at::Tensor start_R = slab(scales_O) / full_R;
        const auto scales = [&](const at::Tensor& clip_R) {
          return weight_scales(w_RI, bits, clip_R);
        };
        const auto errors_under = [&](const at::Tensor& clip_R) {
          const QTensor rounded = quantize_weight(w_RI, bits, scales(clip_R));
          return errors_of(rounded.dequantize(at::kFloat), channels);
        };
        at::Tensor best_R = start_R;
        at::Tensor least_R = errors_under(start_R);
        for (int k = 0; k < kFactors; ++k) {
          check_stop();
          const double factor = 1 - kRange + 2 * kRange * k / (kFactors - 1);
          const at::Tensor clip_R = (start_R * factor).clamp_max_(1);
          const at::Tensor error_R = errors_under(clip_R);
          best_R = at::where(error_R < least_R, clip_R, best_R);
          least_R = at::minimum(error_R, least_R);
        }
        return scales(best_R);
      });
}

}  // namespace

std::vector<double> tried_input_factors(int bits) {
  const double top = (1 << (bits - 1)) - 1;
  std::vector<double> factors{1, top / (top + 0.5)};
  for (int k = 1; k <= kInputFactors; ++k) {
    factors.push_back(1 - kInputStep * k);
  }
  return factors;
}

at::Tensor best_input_clip(const std::vector<double>& errors, int bits) {
  const auto best = std::min_element(errors.begin(), errors.end()) - errors.begin();
  const double factor = tried_input_factors(bits)[static_cast<size_t>(best)];
  return best == 0 ? at::Tensor() : at::full({1}, std::log(factor / (1 - factor)), at::kFloat);
}

void learn_clips(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                 const nn::Mlp& mlp, const TokenSource& tokens, const ClipLearnerOptions& options,
                 UnitResult& result) {
  const auto gathered =
      gather_tokens(context, quant_exec, mlp, result.targets, tokens, options.max_tokens);
  if (!gathered) {
    return;
  }
  Learner learner(context, mlp, *gathered, result);
  for (int64_t pass = 0; options.weights && pass < options.passes; ++pass) {
    learner.learn_gate();
    learner.learn_up();
  }
  if (options.activations) {
    learner.learn_down_input();
  }
  if (options.weights) {
    learner.learn_down();
  }
}

}  // namespace blockptq
