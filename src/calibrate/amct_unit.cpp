#include "calibrate/amct_unit.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <utility>

#include "base/error.h"
#include "quant/grid.h"
#include "quant/straight_through.h"
#include "run/parameters.h"

namespace blockptq {
namespace {

constexpr double kInitialLogit = 4.0;

/// Sequence by sequence.
template <typename Function>
at::Tensor map_sequences(const at::Tensor& inputs_CLD, const Function& function) {
  std::vector<at::Tensor> outputs;
  for (int64_t c = 0; c < inputs_CLD.size(0); ++c) {
    outputs.push_back(function(inputs_CLD[c]));
  }
  return at::stack(outputs);
}

/// The weight clamped to its range times the factors of its logits.
at::Tensor clamped(const at::Tensor& w_OI, const at::Tensor& low_O, const at::Tensor& high_O) {
  return w_OI.clamp((w_OI.amin(1) * at::sigmoid(low_O)).unsqueeze(1),
                    (w_OI.amax(1) * at::sigmoid(high_O)).unsqueeze(1));
}

/// Quantized without a clip, and dequantized.
at::Tensor rounded(const Weight& weight, int bits) {
  return bits == kFloatBits ? weight.value : fake_quantize(weight.value, bits);
}

}  // namespace

at::Tensor AmctUnit::loss(const at::Tensor& inputs_CLD, const at::Tensor& targets_CLD) const {
  return at::mse_loss(forward(inputs_CLD), targets_CLD);
}

double AmctUnit::backward(const at::Tensor& inputs_CLD, const at::Tensor& targets_CLD) const {
  const at::Tensor error = loss(inputs_CLD, targets_CLD);
  const auto value = error.item<double>();
  check(std::isfinite(value), "--compat amct: the loss of a unit is not finite: {}", value);
  if (value > 0) {
    error.backward(1 / error.detach());
  }
  return value;
}

at::Tensor AmctUnit::add_logits(const std::string& name, int64_t count, bool learn,
                                const at::Tensor& like) {
  at::Tensor logits = at::full({count}, kInitialLogit, like.options().dtype(at::kFloat));
  logits.set_requires_grad(learn);
  logits_[name] = logits;
  if (learn) {
    learned_.push_back(logits);
  }
  return logits;
}

NamedTensors AmctUnit::parameters() const {
  NamedTensors parameters;
  for (const auto& [name, logits] : logits_) {
    parameters[name] = logits.detach().clone();
  }
  return parameters;
}

AmctMlp::AmctMlp(const nn::Mlp& mlp, const AmctOptions& options)
    : mlp_(mlp),
      recipe_(options.recipe),
      type_(options.type),
      gate_(make_linear(mlp.gate, /*own_input=*/true, options)),
      up_(make_linear(mlp.up, /*own_input=*/false, options)),
      down_(make_linear(mlp.down, /*own_input=*/true, options)) {}

AmctMlp::Linear AmctMlp::make_linear(const Weight& weight, bool own_input,
                                     const AmctOptions& options) {
  const LinearScheme scheme = recipe_.linear(weight.role, weight.name);
  Linear linear;
  linear.weight = weight;
  linear.bits = scheme.weight_bits;
  const bool dense_mlp = weight.role.starts_with("mlp.");
  if (linear.bits != kFloatBits && options.lwc && !dense_mlp) {
    const int64_t channels = weight.value.size(0);
    const auto logits = [&](const char* suffix) {
      return add_logits(parameter_name(weight.name, suffix), channels, /*learn=*/true,
                        weight.value);
    };
    linear.high_O = logits(".weight_clip_max");
    linear.low_O = logits(".weight_clip_min");
  } else {
    linear.weight.value = rounded(weight, linear.bits).to(type_);
  }
  if (own_input && scheme.activation_bits != kFloatBits) {
    linear.input =
        add_logits(parameter_name(weight.name, ".input_clip"), 1, options.lac, weight.value);
  }
  return linear;
}

at::Tensor AmctMlp::clipped(const Linear& linear) const {
  const at::Tensor& w_OI = linear.weight.value;
  return linear.low_O.defined()
             ? fake_quantize_clamped_weight_st(w_OI, linear.bits, at::sigmoid(linear.low_O),
                                               at::sigmoid(linear.high_O), type_)
             : w_OI;
}

at::Tensor AmctMlp::targets(const at::Tensor& inputs_CLD) const {
  const c10::NoGradGuard no_grad;
  nn::Mlp teacher = mlp_;
  const auto widen = [](Weight& weight, const Linear& linear) {
    weight.value = weight.value.to(at::kFloat);
    if (linear.low_O.defined()) {
      const at::Tensor initial_O = at::full_like(linear.low_O, kInitialLogit);
      weight.value = clamped(weight.value, initial_O, initial_O);
    }
  };
  widen(teacher.gate, gate_);
  widen(teacher.up, up_);
  widen(teacher.down, down_);
  return map_sequences(inputs_CLD, [&](const at::Tensor& x_LD) {
    return teacher.forward(FloatExec(), x_LD.to(at::kFloat));
  });
}

at::Tensor AmctMlp::forward(const at::Tensor& inputs_CLD) const {
  nn::Mlp student = mlp_;
  student.gate.value = clipped(gate_);
  student.up.value = clipped(up_);
  student.down.value = clipped(down_);
  FakeQuantExec::Factors factors;
  for (const Linear* linear : {&gate_, &down_}) {
    if (linear->input.defined()) {
      factors[linear->weight.name] = at::sigmoid(linear->input);
    }
  }
  const FakeQuantExec exec(recipe_, std::move(factors));
  const at::Tensor x_ND = inputs_CLD.flatten(0, 1).to(type_);
  return student.forward(exec, x_ND).to(at::kFloat).view(inputs_CLD.sizes());
}

AmctAttention::AmctAttention(const Model& model, const Piece& piece, int64_t block,
                             const AmctOptions& options)
    : model_(model),
      piece_(piece),
      block_(block),
      options_(options.attention),
      recipe_(options.recipe),
      type_(options.type) {
  Piece student = piece;
  for (const Weight& weight : piece.weights()) {
    const int bits = recipe_.linear(weight.role, weight.name).weight_bits;
    student.replace({weight.name, weight.role, rounded(weight, bits).to(type_)});
    if (weight.role == "attention.kv_b_proj") {
      latent_ = weight.name;
    }
  }
  CacheScheme scheme = recipe_.cache(point_name(SiteKind::kv_latent));
  check(!latent_.empty() && scheme.bits != kFloatBits,
        "block {}: --compat amct learns the clip of a quantized latent in attention: there is {}",
        block, latent_.empty() ? "no latent in this model" : "none in this recipe (--cls c8)");
  scheme.group = 0;
  recipe_ = recipe_.with_cache(point_name(SiteKind::kv_latent), scheme);
  logit_ =
      add_logits(parameter_name(latent_, ".input_clip"), 1, options.lac, piece.tensor(latent_));
  quantized_ = model.attention(student, block);
}

at::Tensor AmctAttention::targets(const at::Tensor& inputs_CLD) const {
  const c10::NoGradGuard no_grad;
  Piece wide = piece_;
  for (const Weight& weight : piece_.weights()) {
    wide.replace({weight.name, weight.role, weight.value.to(at::kFloat)});
  }
  const auto teacher = model_.attention(wide, block_);
  return map_sequences(inputs_CLD, [&](const at::Tensor& x_LD) {
    return teacher->forward(FloatExec(), x_LD.to(at::kFloat), options_);
  });
}

at::Tensor AmctAttention::forward(const at::Tensor& inputs_CLD) const {
  const FakeQuantExec exec(recipe_, {{latent_, at::sigmoid(logit_)}});
  return map_sequences(inputs_CLD, [&](const at::Tensor& x_LD) {
    return quantized_->forward(exec, x_LD.to(type_), options_).to(at::kFloat);
  });
}

}  // namespace blockptq
