// One block, for the float model and the quantized model side by side: each unit is calibrated on
// what reaches it in both, and both go on with its outputs.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/ranks.h"
#include "calibrate/text_states.h"
#include "calibrate/unit.h"
#include "calibrate/unit_maker.h"
#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"

namespace blockptq {

class BlockCalibrator {
 public:
  /// All arguments must outlive this. Feed-forward work is done on at most `slice_tokens` tokens.
  /// Each of the `ranks` has the states of all texts. They calibrate the attention together and the
  /// MLPs one by one, and run both models on some of the sequences and MLPs each.
  BlockCalibrator(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                  const Model& model, nn::AttentionOptions attention, int64_t slice_tokens,
                  UnitHooks hooks, Ranks& ranks = alone());

  /// Passes the texts through `block`, whose pieces are next in `stream`.
  void run(PieceStream& stream, int64_t block, std::vector<TextStates>& texts) const;

 private:
  void run_attention(PieceStream& stream, int64_t block, const UnitMaker& units,
                     std::vector<TextStates>& texts) const;

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const Model& model_;
  nn::AttentionOptions attention_;
  int64_t slice_tokens_;
  UnitHooks hooks_;
  Ranks& ranks_;
};

}  // namespace blockptq
