#include "calibrate/clip_learner.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/system.h"
#include "calibrate/adamw.h"
#include "quant/grid.h"
#include "quant/straight_through.h"

namespace blockptq {
namespace {

/// Tokens of one step.
struct Batch {
  at::Tensor x_TD;       ///< input of the quantized model
  at::Tensor y_TD;       ///< wanted output, fp32
  at::Tensor weight_T1;  ///< squared router weights, over the sum of g^2 |y|^2 of all batches
};

/// A weight whose clips are learned.
struct Learned {
  const Weight* weight = nullptr;
  int bits = 8;
  at::Tensor start_O;  ///< c0
  at::Tensor theta_O;
  at::Tensor best_O;

  at::Tensor clip() const { return start_O * theta_O.exp(); }
};

std::vector<Batch> make_batches(const CalibrationContext& context, const nn::Mlp& exact,
                                const TokenSource& tokens, const ClipLearnerOptions& options) {
  std::vector<Batch> batches;
  int64_t taken = 0;
  double norm = 0;
  for (int64_t i = 0; i < tokens.slices && taken < options.max_tokens; ++i) {
    const TokenSlice slice = tokens.slice(i);
    for (int64_t begin = 0; slice.calibrate && begin < slice.quant_TD.size(0);
         begin += options.batch_tokens) {
      const int64_t end = std::min(begin + options.batch_tokens, slice.quant_TD.size(0));
      const at::Tensor y =
          exact.forward(context.float_exec, slice.float_TD.slice(0, begin, end)).to(at::kFloat);
      const at::Tensor weight = slice.weight_T.defined()
                                    ? slice.weight_T.slice(0, begin, end).square().unsqueeze(1)
                                    : at::ones({end - begin, 1}, y.options());
      norm += (weight * y.square()).sum(at::kDouble).item<double>();
      batches.push_back({slice.quant_TD.slice(0, begin, end).clone(), y, weight});
      taken += end - begin;
    }
  }
  for (Batch& batch : batches) {
    batch.weight_T1 = batch.weight_T1 / norm;
  }
  return batches;
}

std::vector<Learned> learned_weights(const CalibrationContext& context, const nn::Mlp& mlp,
                                     const std::map<std::string, QTensor>& chosen) {
  std::vector<Learned> result;
  for (const Weight* weight : {&mlp.gate, &mlp.up, &mlp.down}) {
    const auto found = chosen.find(weight->name);
    if (found == chosen.end()) {
      continue;
    }
    const int bits = context.recipe.linear(weight->role, weight->name).weight_bits;
    const at::Tensor start = found->second.scales_O / weight_scales(weight->value, bits);
    result.push_back(
        {weight, bits, start, at::zeros_like(start).requires_grad_(), at::zeros_like(start)});
  }
  return result;
}

/// The MLP under the clips as they are.
nn::Mlp clipped_mlp(const CalibrationContext& context, const nn::Mlp& mlp,
                    const std::vector<Learned>& learned) {
  nn::Mlp result{float_weight(context, mlp.gate), float_weight(context, mlp.up),
                 float_weight(context, mlp.down)};
  for (Weight* weight : {&result.gate, &result.up, &result.down}) {
    for (const Learned& entry : learned) {
      if (entry.weight->name == weight->name) {
        weight->value =
            fake_quantize_weight_st(entry.weight->value, entry.bits, entry.clip(), context.type);
      }
    }
  }
  return result;
}

at::Tensor batch_loss(const FakeQuantExec& quant_exec, const nn::Mlp& mlp, const Batch& batch) {
  const at::Tensor y = mlp.forward(quant_exec, batch.x_TD).to(at::kFloat);
  return ((y - batch.y_TD).square() * batch.weight_T1).sum();
}

double total_loss(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                  const nn::Mlp& mlp, const std::vector<Learned>& learned,
                  const std::vector<Batch>& batches) {
  const c10::NoGradGuard no_grad;
  const nn::Mlp clipped = clipped_mlp(context, mlp, learned);
  double loss = 0;
  for (const Batch& batch : batches) {
    loss += batch_loss(quant_exec, clipped, batch).item<double>();
  }
  return loss;
}

}  // namespace

void learn_clips(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                 const nn::Mlp& mlp, const TokenSource& tokens, const ClipLearnerOptions& options,
                 std::map<std::string, QTensor>& chosen) {
  const nn::Mlp exact{float_weight(context, mlp.gate), float_weight(context, mlp.up),
                      float_weight(context, mlp.down)};
  const std::vector<Batch> batches = make_batches(context, exact, tokens, options);
  std::vector<Learned> learned = learned_weights(context, mlp, chosen);
  if (batches.empty() || learned.empty()) {
    return;
  }
  std::vector<at::Tensor> parameters;
  parameters.reserve(learned.size());
  for (const Learned& entry : learned) {
    parameters.push_back(entry.theta_O);
  }
  AdamW optimizer(parameters, /*weight_decay=*/0);
  const auto steps = options.epochs * static_cast<int64_t>(batches.size());
  double best = total_loss(context, quant_exec, mlp, learned, batches);
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    for (const Batch& batch : batches) {
      check_stop();
      const c10::AutoGradMode with_grad(true);
      batch_loss(quant_exec, clipped_mlp(context, mlp, learned), batch).backward();
      optimizer.step(cosine_lr(step++, steps, options.lr, options.lr * 1e-2));
    }
    const double loss = total_loss(context, quant_exec, mlp, learned, batches);
    if (loss < best) {
      best = loss;
      for (Learned& entry : learned) {
        entry.best_O = entry.theta_O.detach().clone();
      }
    }
  }
  for (const Learned& entry : learned) {
    const at::Tensor clip_O = entry.start_O * entry.best_O.exp();
    chosen[entry.weight->name] = quantize_weight(
        entry.weight->value, entry.bits, weight_scales(entry.weight->value, entry.bits, clip_O));
  }
}

}  // namespace blockptq
