// The tokens of an MLP side by side, for what learns from them rather than from sums over them.
//
// Shapes: T tokens, D hidden, I features between up and down.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "calibrate/mlp_unit.h"
#include "calibrate/unit.h"
#include "nn/mlp.h"

namespace blockptq {

/// fp32.
struct UnitTokens {
  at::Tensor x_TD;       ///< what the quantized gate and up see
  at::Tensor h_TI;       ///< what goes into down in the float model, smoothed
  at::Tensor y_TD;       ///< the float model's output
  at::Tensor weight_T1;  ///< squared router weights
};

/// Calibration tokens of the unit, at most `max_tokens`, evenly spread. Nothing where there are
/// fewer than 64: too few to learn from. `targets`: of the unit.
std::optional<UnitTokens> gather_tokens(const CalibrationContext& context,
                                        const FakeQuantExec& quant_exec, const nn::Mlp& mlp,
                                        const UnitTargets& targets, const TokenSource& tokens,
                                        int64_t max_tokens);

/// `weight` in fp32: the values of its integers, or its target.
at::Tensor current_value(const Weight& weight, const UnitResult& result);
/// x_TI times it, without making all of it.
at::Tensor current_product(const at::Tensor& x_TI, const Weight& weight, const UnitResult& result);

}  // namespace blockptq
