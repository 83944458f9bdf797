#include "calibrate/refinement.h"

#include "base/error.h"
#include "quant/algorithms/option_reader.h"

namespace blockptq {
namespace {

constexpr int64_t kMost = 1 << 20;

ClipLearnerOptions clip_options(OptionReader& reader) {
  ClipLearnerOptions options;
  reader.read("passes", options.passes, 1, kMost);
  reader.read("max_tokens", options.max_tokens, 1, kMost);
  reader.read("weights", options.weights);
  reader.read("activations", options.activations);
  return options;
}

RoundLearnerOptions round_options(OptionReader& reader) {
  RoundLearnerOptions options;
  reader.read("passes", options.passes, 1, kMost);
  reader.read("sweeps", options.sweeps, 1, kMost);
  reader.read("max_tokens", options.max_tokens, 1, kMost);
  reader.read("damping", options.damping, 0, 1e3);
  return options;
}

Refinement named(const std::string& name, OptionReader& reader, const JsonView& view) {
  if (name == "learned_clip") {
    return clip_options(reader);
  }
  if (name == "learned_round") {
    return round_options(reader);
  }
  check(name == "none", "{}: unknown refinement '{}', expected one of: none, learned_clip, {}",
        view.where(), name, "learned_round");
  return {};
}

}  // namespace

Refinement parse_refinement(const Json& rule) {
  const JsonView view(rule, "recipe", "refine");
  Json options = rule;
  options.erase("name");
  const JsonView options_view(options, "recipe", "refine");
  OptionReader reader(options_view);
  const Refinement refinement = named(view.at("name").string(), reader, view);
  reader.finish();
  return refinement;
}

Refinement refinement_of(const LinearScheme& gate, const Json& default_refinement) {
  if (!gate.refine.is_null()) {
    return parse_refinement(gate.refine);
  }
  const Refinement refinement = parse_refinement(default_refinement);
  const bool rounding = std::holds_alternative<RoundLearnerOptions>(refinement);
  return rounding && gate.weight_bits >= 8 ? Refinement() : refinement;
}

void refine(const CalibrationContext& context, const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
            const TokenSource& tokens, UnitResult& result) {
  const Refinement refinement = refinement_of(context.recipe.linear(mlp.gate.role, mlp.gate.name),
                                              context.default_refinement);
  if (const auto* clips = std::get_if<ClipLearnerOptions>(&refinement)) {
    learn_clips(context, quant_exec, mlp, tokens, *clips, result);
  }
  if (const auto* rounding = std::get_if<RoundLearnerOptions>(&refinement)) {
    learn_rounding(context, quant_exec, mlp, tokens, *rounding, result);
  }
}

}  // namespace blockptq
