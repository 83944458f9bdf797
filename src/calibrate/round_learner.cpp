#include "calibrate/round_learner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/system.h"
#include "calibrate/unit_tokens.h"
#include "kernels/descend_codes.h"
#include "tensor/parallel.h"

namespace blockptq {
namespace {

/// [tokens, n] -> [n, tokens] on the CPU, zeros filling up the tokens.
at::Tensor token_minor(const at::Tensor& x_TN) {
  const int64_t padding = -x_TN.size(0) & (kernels::kDescentTokens - 1);
  return at::constant_pad_nd(x_TN.to(at::kCPU).t(), {0, padding}).contiguous();
}

/// Channels of gate or up that are learned together: C of them.
struct Channels {
  ///< what they stand for
  at::Tensor scales_C;
  at::Tensor codes_CD;
  at::Tensor slopes_CT;    ///< g dh/dy: how the hidden values follow the channels' outputs
  at::Tensor residual_CT;  ///< by how much g h should move
};

/// One MLP in work, in fp32. Shapes: T tokens, D hidden, I channels of gate and up.
class RoundLearner {
 public:
  RoundLearner(const nn::Mlp& mlp, const UnitTokens& tokens, const RoundLearnerOptions& options,
               UnitResult& result)
      : mlp_(mlp),
        options_(options),
        result_(result),
        x_DT_(token_minor(tokens.x_TD)),
        x_squared_TD_(x_DT_.square().t()),
        g_T_(token_minor(tokens.weight_T1).squeeze(0).sqrt_()),
        down_DI_(value(mlp.down)),
        gate_IT_(at::matmul(value(mlp.gate), x_DT_)),
        up_IT_(at::matmul(value(mlp.up), x_DT_)) {
    error_DT_ =
        token_minor(tokens.y_TD).sub_(at::matmul(down_DI_, hidden(0, up_IT_.size(0)))).mul_(g_T_);
  }

  void learn() {
    for (int64_t pass = 0; pass < options_.passes; ++pass) {
      learn(mlp_.gate, gate_IT_);
      learn(mlp_.up, up_IT_);
    }
  }

 private:
  at::Tensor value(const Weight& weight) const {
    return current_value(weight, result_).to(at::kCPU);
  }
  at::Tensor hidden(int64_t begin, int64_t end) const {
    return at::silu(gate_IT_.slice(0, begin, end)).mul_(up_IT_.slice(0, begin, end));
  }

  void learn(const Weight& weight, at::Tensor& output_IT);
  at::Tensor slopes(const Weight& weight, int64_t begin, int64_t end) const;
  at::Tensor descend(const Channels& channels, int bits) const;

  const nn::Mlp& mlp_;
  const RoundLearnerOptions& options_;
  UnitResult& result_;
  at::Tensor x_DT_;
  at::Tensor x_squared_TD_;
  at::Tensor g_T_;
  at::Tensor down_DI_;
  at::Tensor gate_IT_;
  at::Tensor up_IT_;
  at::Tensor error_DT_;  ///< g (y - y')
};

/// g times the derivative of channels' hidden values by the output of `weight`.
at::Tensor RoundLearner::slopes(const Weight& weight, int64_t begin, int64_t end) const {
  const at::Tensor gate_CT = gate_IT_.slice(0, begin, end);
  if (&weight == &mlp_.up) {
    return at::silu(gate_CT).mul_(g_T_);
  }
  const at::Tensor sigmoid_CT = at::sigmoid(gate_CT);
  return (1 + gate_CT * (1 - sigmoid_CT))
      .mul_(sigmoid_CT)
      .mul_(up_IT_.slice(0, begin, end))
      .mul_(g_T_);
}

/// Codes after some sweeps. The ridge is that of a Gaussian prior: a weight lies somewhere in the
/// cell of its code (variance s^2 / 12), and what is wrong with the output, r, is noise to it. So 8
/// bits hardly follow errors that are not those of rounding, and 4 bits do.
at::Tensor RoundLearner::descend(const Channels& channels, int bits) const {
  const at::Tensor squared_CT = channels.slopes_CT.square();
  at::Tensor curvature_CD = at::matmul(squared_CT, x_squared_TD_);
  const at::Tensor noise_C =
      channels.residual_CT.square().sum(1).div_(static_cast<double>(x_DT_.size(1)));
  const at::Tensor ridges_C =
      noise_C.div_(channels.scales_C.square()).mul_(12 * options_.damping).clamp_min_(1e-30);
  curvature_CD.add_(ridges_C.unsqueeze(1));
  const at::Tensor gradient_CT = channels.slopes_CT * channels.residual_CT;
  at::Tensor codes_CD = channels.codes_CD.clone();
  const at::Tensor start_CD = codes_CD * channels.scales_C.unsqueeze(1);
  const kernels::CodeDescent problem{x_DT_.size(0),
                                     x_DT_.size(1),
                                     bits,
                                     x_DT_.const_data_ptr<float>(),
                                     squared_CT.const_data_ptr<float>(),
                                     curvature_CD.const_data_ptr<float>(),
                                     start_CD.const_data_ptr<float>(),
                                     ridges_C.const_data_ptr<float>(),
                                     channels.scales_C.const_data_ptr<float>()};
  for (int64_t sweep = 0; sweep < options_.sweeps; ++sweep) {
    check_stop();
    parallel_rows(codes_CD.size(0), x_DT_.numel(), [&](int64_t begin, int64_t end) {
      kernels::descend_codes(problem, begin, end, gradient_CT.mutable_data_ptr<float>(),
                             codes_CD.mutable_data_ptr<int8_t>());
    });
  }
  return codes_CD;
}

/// A part of the channels at a time: what they do to the output is nearly orthogonal, so that they
/// may answer to the same error at once. A part whose error does not get less stays as it was.
void RoundLearner::learn(const Weight& weight, at::Tensor& output_IT) {
  constexpr int64_t kParts = 8;
  constexpr int64_t kLeast = 16;
  const auto chosen = result_.weights.find(weight.name);
  if (chosen == result_.weights.end()) {
    return;
  }
  const int64_t all = output_IT.size(0);
  const int64_t step = std::max(kLeast, all / kParts / kLeast * kLeast);
  const QTensor& q = chosen->second;
  const at::Tensor scales_I = q.scales_O.cpu();
  at::Tensor codes_ID = q.codes_OI.cpu().clone();
  auto error = error_DT_.square().sum(at::kDouble).item<double>();
  for (int64_t begin = 0; begin < all; begin += step) {
    const int64_t end = std::min(begin + step, all);
    const at::Tensor down_DC = down_DI_.slice(1, begin, end);
    const at::Tensor norm_C1 = down_DC.square().sum(0).unsqueeze(1);
    const Channels channels{scales_I.slice(0, begin, end), codes_ID.slice(0, begin, end),
                            slopes(weight, begin, end),
                            at::matmul(down_DC.t(), error_DT_).div_(norm_C1.clamp_min(1e-30))};
    const at::Tensor codes_CD = descend(channels, q.bits);
    const at::Tensor before_CT = hidden(begin, end);
    at::Tensor output_CT = output_IT.slice(0, begin, end);
    const at::Tensor output_before_CT = output_CT.clone();
    output_CT.copy_(at::matmul(codes_CD * channels.scales_C.unsqueeze(1), x_DT_));
    const at::Tensor moved_CT = hidden(begin, end).sub_(before_CT).mul_(g_T_);
    const at::Tensor error_DT = at::addmm(error_DT_, down_DC, moved_CT, 1, -1);
    const auto error_after = error_DT.square().sum(at::kDouble).item<double>();
    if (error_after < error) {
      error = error_after;
      error_DT_ = error_DT;
      codes_ID.slice(0, begin, end).copy_(codes_CD);
    } else {
      output_CT.copy_(output_before_CT);
    }
  }
  chosen->second.codes_OI = codes_ID.to(q.codes_OI.device());
}

}  // namespace

void learn_rounding(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                    const nn::Mlp& mlp, const TokenSource& tokens,
                    const RoundLearnerOptions& options, UnitResult& result) {
  if (const auto gathered =
          gather_tokens(context, quant_exec, mlp, result.targets, tokens, options.max_tokens)) {
    RoundLearner(mlp, *gathered, options, result).learn();
  }
}

}  // namespace blockptq
