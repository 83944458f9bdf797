// Calibration of one MLP: gate and up from the statistics of their input, then down from those of
// what the quantized gate and up make of it.
//
// Shapes: T tokens, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>

#include "calibrate/unit.h"
#include "nn/mlp.h"

namespace blockptq {

/// Tokens that an MLP sees, normalised, in both models.
struct TokenSlice {
  at::Tensor float_TD;
  at::Tensor quant_TD;    ///< by the norm of the quantized model
  at::Tensor weight_T;    ///< fp32 router weights in the quantized model; undefined: 1
  bool calibrate = true;  ///< false: held-out text, passes through only
};

/// The tokens of a unit, slice by slice; asked for several times.
struct TokenSource {
  int64_t slices = 0;
  std::function<TokenSlice(int64_t index)> slice;
  int64_t tokens = 0;  ///< in the slices that calibrate
};

/// Called with the outputs of slice `index`.
using TakeOutputs =
    std::function<void(int64_t index, const at::Tensor& float_TD, const at::Tensor& quant_TD)>;

/// Factors (fp32 [D]) for what `mlp` reads, as the recipe's smoothing finds them best for it;
/// undefined: none. `report`: losses without and with them.
at::Tensor smooth_input(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                        const nn::Mlp& mlp, const TokenSource& tokens, UnitReport& report);

/// Chooses the integers of `mlp`. factors_D: what the norm of the quantized model divides by
/// (undefined: 1). `block`: statistics of the input over all experts of the block, which help an
/// expert that saw few tokens. Plain rounding is kept where the outcome is no better.
UnitResult calibrate_mlp(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                         const nn::Mlp& mlp, const at::Tensor& factors_D, const TokenSource& tokens,
                         const GroupedStatistics* block);

/// Runs both models' MLP over the tokens, the quantized one with what was found for it.
void run_mlp(const CalibrationContext& context, const nn::Mlp& mlp, const UnitResult& result,
             const TokenSource& tokens, const TakeOutputs& take);

}  // namespace blockptq
