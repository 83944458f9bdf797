// Learned rounding of an MLP: codes of gate and up refined by what the MLP puts out. On its own
// tokens t, with router weights g_t,
//
//   min over the codes of  sum_t g_t^2 |y_t - down (silu(gate_t) up_t)|^2,   y: of the float model
//
// by coordinate descent (kernels/descend_codes.h) on the linearised output: channel j of gate moves
// it by g_t up_tj silu'(gate_tj) down_j, channel j of up by g_t silu(gate_tj) down_j, down_j being
// column j of what down has been rounded to. So gate and up make good for the errors of each other
// and of down, and a token counts where the product lets it through; second-order rounding before
// it counts every token alike in every channel, and each linear by itself.
//
// Learned rounding is what AdaRound (arXiv 2004.10568) and SignRound (arXiv 2309.05516) call codes
// chosen by a loss beyond the single weight. Here codes are integers all the time, and every step
// is the exact minimum over one of them.
#pragma once

#include <cstdint>

#include "calibrate/mlp_unit.h"
#include "calibrate/unit.h"
#include "nn/mlp.h"

namespace blockptq {

struct RoundLearnerOptions {
  int64_t passes = 2;         ///< over gate and up in turns
  int64_t sweeps = 1;         ///< of coordinate descent over a channel in each pass
  int64_t max_tokens = 4096;  ///< of a unit, evenly spread
  double damping = 1;         ///< factor on the ridge 12 mean(r^2) / s^2 towards the codes so far
};

/// Improves the integers of gate and up in `result` in place, after those of down were chosen.
/// Leaves a unit with too few tokens as it is. Memory: a few matrices of
/// tokens x hidden and tokens x intermediate, fp32.
void learn_rounding(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                    const nn::Mlp& mlp, const TokenSource& tokens,
                    const RoundLearnerOptions& options, UnitResult& result);

}  // namespace blockptq
