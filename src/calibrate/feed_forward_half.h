// The feed-forward half of one block, for the float model and the quantized model side by side.
//
// Shapes: N tokens of a text, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ranks.h"
#include "calibrate/routed_tokens.h"
#include "calibrate/shared_outputs.h"
#include "calibrate/text_states.h"
#include "calibrate/unit.h"
#include "calibrate/unit_maker.h"
#include "models/model.h"
#include "models/piece.h"

namespace blockptq {

class FeedForwardHalf {
 public:
  /// All arguments must outlive this. Work is done on at most `slice_tokens` tokens.
  FeedForwardHalf(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                  const Model& model, int64_t block, int64_t slice_tokens, const UnitMaker& units,
                  Ranks& ranks, const std::vector<TextStates>& texts);
  FeedForwardHalf(const FeedForwardHalf&) = delete;
  FeedForwardHalf& operator=(const FeedForwardHalf&) = delete;

  /// Calibrates its units, whose pieces are next in `stream`, and adds what they put out to the
  /// states of the texts.
  void run(PieceStream& stream);

 private:
  void run_common(PieceStream& stream);
  /// The norm in front of the MLPs and what reads it beside them, as the quantized model has them:
  /// smoothed by factors_D_. `sample`: an MLP that stands for all that read the norm.
  Piece calibrate_norm(const Piece& piece, const FeedForward& half, const nn::Mlp& sample);
  UnitResult choose_norm(const Piece& piece, const FeedForward& half, const nn::Mlp& sample) const;
  void route(const nn::Router& float_router, const nn::Router& quant_router);
  void run_experts(PieceStream& stream);
  /// Statistics of the experts' input over all of them: the sum of what each expert would sum up.
  /// `expert`: the first one, on the rank that holds it.
  GroupedStatistics block_statistics(const nn::Mlp* expert) const;
  /// The next MLP in order; `mlp`: on its owner.
  void run_unit(const std::string& name, int64_t index, const nn::Mlp& mlp,
                const std::vector<TokenRows>& rows, const GroupedStatistics* block_sum);

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const Model& model_;
  int64_t block_;
  int64_t slice_tokens_;
  const UnitMaker& units_;
  Ranks& ranks_;
  std::vector<FeedForwardText> texts_;
  SharedOutputs outputs_;
  NormWeights norm_;
  at::Tensor factors_D_;               ///< by which the quantized model's norm is divided
  std::optional<Piece> first_expert_;  ///< loaded already
};

}  // namespace blockptq
