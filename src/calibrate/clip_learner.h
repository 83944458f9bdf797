// Learned clips of an MLP's weights (LWC of OmniQuant, arXiv 2308.13137, on the one grid of
// quant/grid.h): one factor per output channel, learned through the whole MLP on its own tokens.
//
//   c_o = c0_o exp(theta_o),  c0: the clip that the searched scale stands for,  theta = 0 at first,
//   loss = sum g^2 |y - y'|^2 / sum g^2 |y|^2,  y: float model on its input, y': quantized model on
//   its own
//
// AdamW without weight decay, cosine schedule; the factors of the best epoch are kept.
#pragma once

#include <map>
#include <string>

#include "calibrate/mlp_unit.h"
#include "calibrate/unit.h"
#include "nn/mlp.h"

namespace blockptq {

/// Improves `chosen` (the integers of gate, up and down) in place. `mlp`: weights in fp32.
void learn_clips(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                 const nn::Mlp& mlp, const TokenSource& tokens, const ClipLearnerOptions& options,
                 std::map<std::string, QTensor>& chosen);

}  // namespace blockptq
