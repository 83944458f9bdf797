// One block, for the float model and the quantized model side by side: each unit is calibrated on
// what reaches it in both, and both go on with its outputs.
//
// Shapes: C sequences, L tokens of each, N = C * L, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ranks.h"
#include "calibrate/unit.h"
#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"

namespace blockptq {

/// The states of one text in both models, contiguous.
struct TextStates {
  at::Tensor float_CLD;
  at::Tensor quant_CLD;
  bool calibrate = true;  ///< false: held-out text
};

/// What the calibrator asks and tells its owner.
struct UnitHooks {
  /// The outcome of a unit that an earlier run finished.
  std::function<std::optional<UnitResult>(const std::string& unit, const std::vector<Weight>&)>
      find;
  /// A unit that this rank has just calibrated: `find` gives it from now on, on every rank.
  std::function<void(const UnitResult& result)> finished;
  /// On every rank, in the order of the units: `unit` has done its part.
  std::function<void(const std::string& unit)> passed;
};

struct FeedForwardText;

/// Who calibrates a unit that all ranks need.
enum class Makers { first, all };

class BlockCalibrator {
 public:
  /// All arguments must outlive this. Feed-forward work is done on at most `slice_tokens` tokens.
  /// Each of the `ranks` has the states of all texts, calibrates some units and runs both models on
  /// some of the sequences and experts.
  BlockCalibrator(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                  const Model& model, nn::AttentionOptions attention, int64_t slice_tokens,
                  UnitHooks hooks, Ranks& ranks = alone());

  /// Passes the texts through `block`, whose pieces are next in `stream`.
  void run(PieceStream& stream, int64_t block, std::vector<TextStates>& texts) const;

 private:
  UnitResult calibrated(int64_t block, const std::string& unit,
                        const std::function<UnitResult()>& calibrate) const;
  UnitResult make_unit(int64_t block, const std::string& unit, const std::vector<Weight>& tensors,
                       const std::function<UnitResult()>& calibrate) const;
  UnitResult share_unit(Makers makers, int64_t block, const std::string& unit,
                        const std::vector<Weight>& tensors,
                        const std::function<UnitResult()>& calibrate) const;
  GroupedStatistics block_statistics(const std::vector<FeedForwardText>& texts,
                                     const nn::Mlp* expert, const at::Tensor& norm_D) const;
  void run_attention(PieceStream& stream, int64_t block, std::vector<TextStates>& texts) const;
  void run_feed_forward(PieceStream& stream, int64_t block, std::vector<TextStates>& texts) const;
  UnitResult calibrate_norm(const Piece& piece, const nn::Mlp& sample, int64_t block,
                            const std::vector<FeedForwardText>& states) const;

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const Model& model_;
  nn::AttentionOptions attention_;
  int64_t slice_tokens_;
  UnitHooks hooks_;
  Ranks& ranks_;
};

}  // namespace blockptq
