#include "calibrate/unit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "calibrate/shared_work.h"
#include "checkpoint/checkpoint.h"
#include "quant/algorithms/algorithms.h"
#include "quant/algorithms/nearest.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

/// The algorithm of a rule, {"name": ..., options}.
Algorithm algorithm_of(const Json& rule, at::ScalarType type) {
  const JsonView view(rule, "recipe", "algorithm");
  Json options = rule;
  options.erase("name");
  return make_algorithm(view.at("name").string(), JsonView(options, "recipe", "algorithm"), type);
}

/// The rule of the algorithm of a linear.
const Json& rule_of(const CalibrationContext& context, const LinearScheme& scheme) {
  return scheme.algorithm.is_null() ? context.default_algorithm : scheme.algorithm;
}

const TargetWeight& target_of(const Weight& weight, UnitResult& result) {
  return result.targets.try_emplace(weight.name, weight.value).first->second;
}

/// `tensor` with what is folded into it, in its type.
at::Tensor folded_value(const Weight& tensor, const UnitResult& result) {
  const auto target = result.targets.find(tensor.name);
  return target == result.targets.end() || !target->second.folded().defined()
             ? tensor.value
             : target->second.whole().to(tensor.value.scalar_type());
}

}  // namespace

Json UnitReport::json() const {
  Json json{{"block", block},           {"unit", unit},
            {"tokens", tokens},         {"loss_before", loss_before},
            {"loss_after", loss_after}, {"seconds", seconds}};
  if (!fallback.empty()) {
    json["fallback"] = fallback;
  }
  return json;
}

void keep_rotated(const CalibrationContext& context, const std::vector<Weight>& tensors,
                  UnitResult& result) {
  for (const Weight& tensor : tensors) {
    const bool rotated = context.rotation != nullptr && context.rotation->changes(tensor.name);
    if (rotated && !result.weights.contains(tensor.name)) {
      result.transformed[tensor.name] =
          folded_value(tensor, result).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    }
  }
}

at::Tensor as_written(const CalibrationContext& context, const Weight& tensor) {
  const bool quantized =
      tensor.value.dim() == 2 && context.recipe.quantizes(tensor.role, tensor.name);
  if (context.source == nullptr || quantized) {
    return tensor.value;
  }
  const auto type = float_type(context.source->at(tensor.name).float_dtype());
  return type ? tensor.value.to(torch_type(*type)).to(tensor.value.scalar_type()) : tensor.value;
}

bool needs_cross_sums(const CalibrationContext& context, const std::vector<Weight>& weights) {
  return std::ranges::any_of(weights, [&](const Weight& weight) {
    const LinearScheme scheme = context.recipe.linear(weight.role, weight.name);
    return scheme.weight_bits != kFloatBits &&
           uses_cross_sums(rule_of(context, scheme).value("name", ""));
  });
}

void choose_codes(const CalibrationContext& context, const std::vector<Weight>& weights,
                  GroupedStatistics input, UnitResult& result, Ranks& ranks) {
  // Weights with the same bits and algorithm are chosen together: they share the factor of H.
  std::map<std::pair<int, std::string>, std::vector<const Weight*>> groups;
  for (const Weight& weight : weights) {
    const LinearScheme scheme = context.recipe.linear(weight.role, weight.name);
    if (scheme.weight_bits != kFloatBits) {
      groups[{scheme.weight_bits, rule_of(context, scheme).dump()}].push_back(&weight);
    }
  }
  size_t left = groups.size();
  for (const auto& [key, members] : groups) {
    std::vector<TargetWeight> targets;
    for (const Weight* weight : members) {
      targets.push_back(target_of(*weight, result));
    }
    GroupedStatistics own;
    if (--left == 0) {
      own.swap(input);
    } else {
      own = input;
    }
    const Algorithm algorithm = algorithm_of(Json::parse(key.second), context.type);
    const auto chosen = choose_together(ranks, algorithm, targets, key.first, std::move(own));
    for (size_t i = 0; i < members.size(); ++i) {
      result.weights[members[i]->name] = chosen[i];
    }
  }
}

void round_to_nearest(const CalibrationContext& context, const std::vector<Weight>& weights,
                      UnitResult& result) {
  for (const Weight& weight : weights) {
    const int bits = context.recipe.linear(weight.role, weight.name).weight_bits;
    if (bits != kFloatBits) {
      result.weights[weight.name] = nearest(target_of(weight, result), bits);
    }
  }
}

UnitResult plain_rounding(const CalibrationContext& context, const std::vector<Weight>& weights,
                          UnitTargets targets) {
  UnitResult result;
  result.targets = std::move(targets);
  round_to_nearest(context, weights, result);
  return result;
}

bool keep_better(double loss_before, double loss_after, const std::function<UnitResult()>& plain,
                 UnitResult& result) {
  const bool worse = loss_after > loss_before;
  if (worse) {
    const UnitReport report = result.report;
    result = plain();
    result.report = report;
    result.report.fallback = "plain rounding was better";
  }
  result.report.loss_before = loss_before;
  result.report.loss_after = std::min(loss_before, loss_after);
  return worse;
}

Weight quantized_weight(const CalibrationContext& context, const Weight& tensor,
                        const UnitResult& result) {
  Weight quantized{tensor.name, tensor.role, {}};
  if (const auto chosen = result.weights.find(tensor.name); chosen != result.weights.end()) {
    quantized.integers = as_int8(chosen->second);
    return quantized;
  }
  const auto transformed = result.transformed.find(tensor.name);
  quantized.value = transformed == result.transformed.end()
                        ? folded_value(tensor, result)
                        : transformed->second.to(tensor.value.options());
  quantized.value = as_written(context, quantized);
  return quantized;
}

FakeQuantExec::Factors input_factors(const UnitResult& result) {
  FakeQuantExec::Factors factors;
  for (const auto& [name, logit] : result.input_clips) {
    factors[name] = at::sigmoid(logit);
  }
  return factors;
}

double factor_of(const UnitResult& result, const Weight& weight) {
  const auto found = result.input_clips.find(weight.name);
  return found == result.input_clips.end() ? 1 : at::sigmoid(found->second).item<double>();
}

void RelativeError::add(const at::Tensor& y, const at::Tensor& reference,
                        const at::Tensor& weight_T) {
  const at::Tensor exact = reference.to(at::kFloat);
  at::Tensor error_T = (y.to(at::kFloat) - exact).square().sum(-1);
  at::Tensor norm_T = exact.square().sum(-1);
  if (weight_T.defined()) {
    error_T.mul_(weight_T.square());
    norm_T.mul_(weight_T.square());
  }
  tokens_ += weight_T.defined() ? weight_T.count_nonzero().item<int64_t>() : y.size(0);
  error_ += error_T.sum(at::kDouble).item<double>();
  norm_ += norm_T.sum(at::kDouble).item<double>();
}

}  // namespace blockptq
