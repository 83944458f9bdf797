// What improves the integers of an MLP on its tokens, after an algorithm has chosen them from sums
// over tokens (quant/algorithms): the table of refinements.
#pragma once

#include <string>
#include <variant>

#include "base/json.h"
#include "calibrate/clip_learner.h"
#include "calibrate/round_learner.h"

namespace blockptq {

using Refinement = std::variant<std::monostate, ClipLearnerOptions, RoundLearnerOptions>;

/// {"name": "none" | "learned_clip" | "learned_round", options}; a missing option has the default
/// of its header. Error for an unknown name or option, or a value out of range.
Refinement parse_refinement(const Json& rule);

/// Of an MLP with that scheme of gate_proj: what its rule names, else the run's default, but
/// `learned_round` only below 8 bits, where rounding is what is wrong.
Refinement refinement_of(const LinearScheme& gate, const Json& default_refinement);

/// Applies it: the integers of gate, up and down in `result` are improved in place.
void refine(const CalibrationContext& context, const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
            const TokenSource& tokens, UnitResult& result);

}  // namespace blockptq
