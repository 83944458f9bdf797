#include "calibrate/attention_unit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/system.h"
#include "calibrate/clip_learner.h"
#include "calibrate/statistics.h"
#include "exec/record_exec.h"

namespace blockptq {
namespace {

/// Weights that see the same input, and the statistics of it.
struct InputGroup {
  const void* data = nullptr;  ///< of the input in the sequence that is running
  std::vector<Weight> weights;
  StatisticsSum sum;
};

/// The weights that the recipe quantizes.
std::vector<Weight> quantized_weights(const CalibrationContext& context, const Piece& piece) {
  std::vector<Weight> weights;
  for (const Weight& weight : piece.weights()) {
    if (context.recipe.linear(weight.role, weight.name).weight_bits != kFloatBits) {
      weights.push_back(weight);
    }
  }
  return weights;
}

/// Groups weights by the inputs that were observed; those that were not used (an indexer that does
/// not select) are left out.
std::vector<InputGroup> group_by_input(const std::vector<Weight>& weights,
                                       const RecordExec& record) {
  std::vector<InputGroup> groups;
  for (const Weight& weight : weights) {
    const auto input = record.inputs().find(weight.name);
    if (input == record.inputs().end()) {
      continue;
    }
    const void* data = input->second.const_data_ptr();
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const InputGroup& other) { return other.data == data; });
    if (group == groups.end()) {
      group = groups.insert(group, InputGroup{data, {}, {}});
    }
    group->weights.push_back(weight);
  }
  return groups;
}

}  // namespace

AttentionUnit::AttentionUnit(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                             const Model& model, const Piece& piece, int64_t block,
                             nn::AttentionOptions options)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      piece_(piece),
      block_(block),
      options_(options) {}

std::unique_ptr<nn::Attention> AttentionUnit::float_attention() const {
  return quantized_attention({});
}

std::unique_ptr<nn::Attention> AttentionUnit::quantized_attention(
    const std::map<std::string, QTensor>& chosen) const {
  Piece piece = piece_;
  for (const Weight& weight : piece_.weights()) {
    piece.replace(weight.name, quantized_weight(context_, weight, chosen).value);
  }
  return model_.attention(piece, block_);
}

UnitResult AttentionUnit::calibrate(const SequenceSource& sequences) const {
  const std::vector<Weight> weights = quantized_weights(context_, piece_);
  UnitResult result;
  std::map<std::string, QTensor> nearest;
  round_to_nearest(context_, weights, nearest);
  const auto attention = float_attention();
  RecordExec float_record(context_.float_exec);
  RecordExec quant_record(quant_exec_);
  std::vector<InputGroup> groups;
  for (int64_t c = 0; c < sequences.sequences; ++c) {
    check_stop();
    attention->forward(float_record, sequences.float_LD(c), options_);
    attention->forward(quant_record, sequences.quant_LD(c), options_);
    if (groups.empty()) {
      groups = group_by_input(weights, quant_record);
    }
    for (InputGroup& group : groups) {
      const std::string& name = group.weights.front().name;
      group.sum.add(float_record.inputs().at(name), quant_record.inputs().at(name), {});
    }
  }
  result.weights = nearest;
  for (const InputGroup& group : groups) {
    result.report.tokens = group.sum.result().tokens;
    choose_codes(context_, group.weights, group.sum.result(), result.weights);
  }
  if (context_.learn_clips && context_.learn_clips->activations) {
    learn_latent_clip(sequences, context_.learn_clips->max_tokens, result);
  }
  measure(sequences, nearest, result);
  return result;
}

void AttentionUnit::learn_latent_clip(const SequenceSource& sequences, int64_t max_tokens,
                                      UnitResult& result) const {
  const int bits = context_.recipe.cache(point_name(SiteKind::kv_latent)).bits;
  const std::vector<Weight> weights = piece_.weights();
  const auto latent = std::find_if(weights.begin(), weights.end(), [](const Weight& weight) {
    return weight.role == "attention.kv_b_proj";
  });
  if (bits == kFloatBits || latent == weights.end()) {
    return;
  }
  const std::vector<double> factors = tried_input_factors(bits);
  std::vector<double> errors(factors.size(), 0);
  const auto exact = float_attention();
  const auto quantized = quantized_attention(result.weights);
  int64_t taken = 0;
  for (int64_t c = 0; c < sequences.sequences && taken < max_tokens; ++c) {
    const at::Tensor x = sequences.quant_LD(c);
    const at::Tensor y = exact->forward(context_.float_exec, sequences.float_LD(c), options_);
    taken += x.size(0);
    for (size_t i = 0; i < factors.size(); ++i) {
      check_stop();
      const FakeQuantExec exec(context_.recipe,
                               {{latent->name, at::full({1}, factors[i], at::kFloat)}});
      const at::Tensor error = quantized->forward(exec, x, options_).to(at::kFloat).sub_(y);
      errors[i] += error.square_().sum(at::kDouble).item<double>();
    }
  }
  const at::Tensor logit = best_input_clip(errors, bits);
  if (logit.defined()) {
    result.input_clips[latent->name] = logit;
  }
}

void AttentionUnit::measure(const SequenceSource& sequences,
                            const std::map<std::string, QTensor>& nearest,
                            UnitResult& result) const {
  const auto exact = float_attention();
  const auto before = quantized_attention(nearest);
  const auto after = quantized_attention(result.weights);
  const FakeQuantExec after_exec(context_.recipe, input_factors(result));
  RelativeError error_before;
  RelativeError error_after;
  for (int64_t c = 0; c < sequences.sequences; ++c) {
    check_stop();
    const at::Tensor y = exact->forward(context_.float_exec, sequences.float_LD(c), options_);
    const at::Tensor x = sequences.quant_LD(c);
    error_before.add(before->forward(quant_exec_, x, options_), y, {});
    error_after.add(after->forward(after_exec, x, options_), y, {});
  }
  result.report.loss_before = error_before.value();
  result.report.loss_after = error_after.value();
  if (result.report.loss_after > result.report.loss_before) {
    result.weights = nearest;
    result.input_clips.clear();
    result.report.loss_after = result.report.loss_before;
    result.report.fallback = "plain rounding was better";
  }
}

}  // namespace blockptq
