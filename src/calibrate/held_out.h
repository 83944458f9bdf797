// What the quantized model has lost on a text that it was not calibrated on.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "base/json.h"
#include "calibrate/text_states.h"
#include "text/windows.h"

namespace blockptq {

/// Rows of the output head [V, D] in both models.
struct HeadTile {
  at::Tensor float_VD;
  at::Tensor quant_VD;
};

/// The journal's entry: perplexities of both models, KL(float || quantized) and the share of equal
/// first choices. `text`: normalised in front of the output head; `next_tile` gives the head tile
/// by tile, then undefined tensors.
Json measure_held_out(const TextStates& text, const TokenWindows& windows,
                      const std::function<HeadTile()>& next_tile);

}  // namespace blockptq
