// The states of a text while a model is calibrated.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq {

/// The states of one text in both models, contiguous.
struct TextStates {
  at::Tensor float_CLD;
  at::Tensor quant_CLD;
  bool calibrate = true;  ///< false: held-out text
};

}  // namespace blockptq
