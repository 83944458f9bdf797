#include "calibrate/attention_unit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/system.h"
#include "calibrate/clip_learner.h"
#include "calibrate/observe.h"
#include "calibrate/refinement.h"
#include "calibrate/smoothing.h"
#include "exec/record_exec.h"
#include "nn/norm.h"

namespace blockptq {
namespace {

/// The error of all sequences, of which each rank does some.
double shared_error(Ranks& ranks, int64_t sequences,
                    const std::function<RelativeError(int64_t index)>& error_of) {
  const auto sums = shared_sums(ranks, sequences, 2, [&](int64_t c) {
    check_stop();
    const RelativeError error = error_of(c);
    return std::vector<double>{error.error(), error.norm()};
  });
  return RelativeError(sums[0], sums[1]).value();
}

/// Some of the sequences, evenly spread.
std::vector<int64_t> spread(int64_t sequences, int64_t wanted) {
  std::vector<int64_t> chosen;
  const int64_t count = std::min(sequences, wanted);
  for (int64_t i = 0; i < count; ++i) {
    chosen.push_back(i * sequences / count);
  }
  return chosen;
}

/// Some sequences as the quantized model has them, and what the float model makes of them.
struct Sample {
  std::vector<at::Tensor> states;
  std::vector<at::Tensor> outputs;          ///< of this rank's
  std::map<std::string, RowSample> inputs;  ///< on rank 0: of the first reader of every point
};

Sample float_sample(const CalibrationContext& context, const NormedAttention& exact,
                    const SequenceSource& sequences, const std::vector<ScalePoint>& points,
                    const Ranks& ranks) {
  const bool first = ranks.rank() == 0;
  Sample sample;
  int64_t tokens = 0;
  for (const int64_t c : spread(sequences.sequences, kSmoothSequences)) {
    sample.states.push_back(sequences.quant_LD(c));
    tokens += sample.states.back().size(0);
  }
  RecordExec record(context.float_exec);
  sample.outputs.resize(sample.states.size());
  for (size_t i = 0; i < sample.states.size(); ++i) {
    check_stop();
    if (first || ranks.does(static_cast<int64_t>(i))) {
      sample.outputs[i] = exact.forward(record, sample.states[i]);
    }
    if (!first) {
      continue;
    }
    for (const ScalePoint& point : points) {
      const std::string& reader = point.readers.front();
      sample.inputs.try_emplace(reader, tokens).first->second.add(record.inputs().at(reader));
    }
  }
  return sample;
}

}  // namespace

NormedAttention::NormedAttention(const Model& model, const Piece& piece, int64_t block,
                                 nn::AttentionOptions options)
    : norm_D_(model.attention_norm(piece, block)),
      eps_(model.spec().rms_norm_eps),
      options_(options),
      attention_(model.attention(piece, block)) {}

at::Tensor NormedAttention::forward(const Exec& exec, const at::Tensor& states_LD) const {
  return attention_->forward(exec, nn::rms_norm(states_LD, norm_D_, eps_), options_);
}

AttentionUnit::AttentionUnit(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                             const Model& model, Piece piece, int64_t block,
                             nn::AttentionOptions options, Ranks& ranks)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      piece_(std::move(piece)),
      block_(block),
      options_(options),
      ranks_(ranks) {}

NormedAttention AttentionUnit::attention(const Piece& piece) const {
  return {model_, piece, block_, options_};
}

NormedAttention AttentionUnit::quantized_attention(const UnitResult& result) const {
  Piece piece = piece_;
  for (const Weight& tensor : piece_.tensors()) {
    piece.replace(quantized_weight(context_, tensor, result));
  }
  return attention(piece);
}

NormedAttention AttentionUnit::unrounded_attention() const {
  Piece piece = piece_;
  for (Weight tensor : piece_.tensors()) {
    tensor.value = as_written(context_, tensor);
    piece.replace(tensor);
  }
  return attention(piece);
}

std::vector<Weight> AttentionUnit::quantized_weights() const {
  std::vector<Weight> weights;
  for (const Weight& weight : piece_.weights()) {
    if (context_.recipe.quantizes(weight.role, weight.name)) {
      weights.push_back(weight);
    }
  }
  return weights;
}

std::vector<AttentionUnit::Fold> AttentionUnit::smooth(const SequenceSource& sequences) const {
  const std::vector<ScalePoint> points = model_.attention_scale_points(block_);
  const Sample sample = float_sample(context_, float_attention(), sequences, points, ranks_);
  const auto loss = [&] {
    std::optional<NormedAttention> rounded;  // where it has something to do
    return shared_error(ranks_, static_cast<int64_t>(sample.states.size()), [&](int64_t i) {
      if (!rounded) {
        rounded = quantized_attention(plain_rounding(context_, quantized_weights()));
      }
      RelativeError error;
      error.add(rounded->forward(quant_exec_, sample.states[i]), sample.outputs[i], {});
      return error;
    });
  };
  std::vector<Fold> folds;
  double least = loss();
  for (const ScalePoint& point : points) {
    const std::string& reader = point.readers.front();
    const at::Tensor balanced_F =
        ranks_.rank() == 0 ? balance(point, sample.inputs.at(reader).rows()) : at::Tensor();
    const at::Tensor factors_F = choose_factors(
        Factors::powers_of_two, shared_vector(ranks_, balanced_F, piece_.tensor(reader).device()),
        [&](const at::Tensor& candidate_F) {
          fold(piece_, point, candidate_F);
          const double found = loss();
          fold(piece_, point, 1 / candidate_F);
          return found;
        },
        least);
    if (factors_F.defined()) {
      fold(piece_, point, factors_F);
      folds.push_back({point, factors_F});
    }
  }
  return folds;
}

at::Tensor AttentionUnit::balance(const ScalePoint& point, const at::Tensor& x_TI) const {
  std::vector<BalancedReader> readers;
  for (const std::string& reader : point.readers) {
    readers.push_back(balanced_reader(context_.recipe, piece_.weight(reader)));
  }
  const Weight first = piece_.weight(point.readers.front());
  BalancedInput input{x_TI};
  if (point.site == SiteKind::linear_input) {
    input.bits = context_.recipe.linear(first.role, first.name).activation_bits;
  } else {
    const CacheScheme scheme = context_.recipe.cache(point_name(point.site));
    input.bits = scheme.bits;
    input.group = scheme.group;
  }
  return balance_factors(input, readers, point.columns_I);
}

UnitResult AttentionUnit::calibrate(const SequenceSource& sequences,
                                    AttentionOutputs& outputs) const {
  UnitResult result;
  if (quantized_weights().empty()) {
    for (int64_t c = 0; c < sequences.sequences; ++c) {
      result.report.tokens += sequences.quant_LD(c).size(0);
    }
    keep_rotated(context_, piece_.tensors(), result);
    return result;
  }
  const std::vector<Fold> folds = context_.smooths() ? smooth(sequences) : std::vector<Fold>();
  choose(sequences, result, outputs);
  for (const auto& [point, factors_F] : folds) {  // from now on the piece is the source's
    fold(piece_, point, 1 / factors_F);
    note_fold(piece_, point, factors_F, result.targets);
  }
  keep_rotated(context_, piece_.tensors(), result);
  const Refinement refinement = parse_refinement(context_.default_refinement);
  if (const auto* clips = std::get_if<ClipLearnerOptions>(&refinement);
      clips != nullptr && clips->activations) {
    learn_latent_clip(sequences, clips->max_tokens, result);
  }
  measure(sequences, result, outputs);
  return result;
}

void AttentionUnit::choose(const SequenceSource& sequences, UnitResult& result,
                           AttentionOutputs& outputs) const {
  const std::vector<Weight> weights = quantized_weights();
  std::vector<ObservedInput> groups =
      observe(context_, quant_exec_, float_attention(), unrounded_attention(), sequences, weights,
              outputs, ranks_);
  for (ObservedInput& group : groups) {
    const at::Tensor& first_OI = group.weights.front().value;
    GroupedStatistics input = group.sum.take(first_OI.size(1), first_OI.device());
    result.report.tokens = input.front().tokens;
    choose_codes(context_, group.weights, std::move(input), result, ranks_);
  }
  // What was not used, as the indexer of short sequences, has no statistics.
  for (const Weight& weight : weights) {
    if (!result.weights.contains(weight.name)) {
      round_to_nearest(context_, {weight}, result);
    }
  }
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
  const NormedAttention exact = float_attention();
  const NormedAttention quantized = quantized_attention(result);
  int64_t wanted = 0;
  for (int64_t tokens = 0; wanted < sequences.sequences && tokens < max_tokens; ++wanted) {
    tokens += sequences.quant_LD(wanted).size(0);
  }
  const auto errors = shared_sums(ranks_, wanted, factors.size(), [&](int64_t c) {
    const at::Tensor y = exact.forward(context_.float_exec, sequences.float_LD(c));
    std::vector<double> own;
    for (const double factor : factors) {
      check_stop();
      const FakeQuantExec exec(context_.recipe,
                               {{latent->name, at::full({1}, factor, at::kFloat)}});
      const at::Tensor error =
          quantized.forward(exec, sequences.quant_LD(c)).to(at::kFloat).sub_(y);
      own.push_back(error.square_().sum(at::kDouble).item<double>());
    }
    return own;
  });
  const at::Tensor logit = best_input_clip(errors, bits);
  if (logit.defined()) {
    result.input_clips[latent->name] = logit;
  }
}

void AttentionUnit::measure(const SequenceSource& sequences, UnitResult& result,
                            AttentionOutputs& outputs) const {
  const auto error = [&](const UnitResult& of, std::vector<at::Tensor>* kept) {
    const NormedAttention attention = quantized_attention(of);
    const FakeQuantExec exec(context_.recipe, input_factors(of));
    return shared_error(ranks_, sequences.sequences, [&](int64_t c) {
      const at::Tensor y = attention.forward(exec, sequences.quant_LD(c));
      RelativeError own;
      own.add(y, outputs.float_LD[c], {});
      if (kept != nullptr) {
        (*kept)[c] = y;
      }
      return own;
    });
  };
  outputs.quant_LD.resize(outputs.float_LD.size());
  const double after = error(result, &outputs.quant_LD);
  UnitResult plain = plain_rounding(context_, quantized_weights());
  keep_rotated(context_, piece_.tensors(), plain);
  const double before = error(plain, nullptr);
  if (keep_better(
          before, after, [&] { return std::move(plain); }, result)) {
    outputs.quant_LD.clear();
  }
}

}  // namespace blockptq
