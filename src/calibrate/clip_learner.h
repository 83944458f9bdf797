// Learned clips of an MLP (LWC and LAC of OmniQuant, arXiv 2308.13137, on the one grid of
// quant/grid.h), on its own tokens t with router weights g_t:
//
//   gate, up   the factor of every channel with the least  sum_t g^2 (h_tj - h'_tj)^2,  h: what the
//              float model puts into down, h': the quantized model; channels are independent
//   down       the same with the output y; before it, the factor of its input, one for all tokens
//
// by coordinate descent over factors around the clip that the searched scale stands for, gate and
// up in turns. Straight-through gradients (--compat amct) lose here: they move all channels at
// once, off the factors whose rounding errors happen to cancel, which is what a search lives on
// (docs/training.md has numbers).
#pragma once

#include "calibrate/mlp_unit.h"
#include "calibrate/unit.h"
#include "nn/mlp.h"

namespace blockptq {

struct ClipLearnerOptions {
  int64_t passes = 1;         ///< over gate and up in turns
  int64_t max_tokens = 2048;  ///< of a unit, evenly spread
  bool weights = true;        ///< learn clips of weights
  bool activations = false;   ///< learn clips of activations
};

/// Factors on dynamic maxima that are tried, from 1 down. The second is the one at which the
/// maximum lies at the end of the cell of the largest code.
std::vector<double> tried_input_factors(int bits);

/// The LAC logit of the factor with the least error; undefined: 1 is best. errors: of
/// tried_input_factors(bits).
at::Tensor best_input_clip(const std::vector<double>& errors, int bits);

/// Improves `result` (the integers of gate, up and down) in place. Leaves a unit with too few
/// tokens as it is.
void learn_clips(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                 const nn::Mlp& mlp, const TokenSource& tokens, const ClipLearnerOptions& options,
                 UnitResult& result);

}  // namespace blockptq
