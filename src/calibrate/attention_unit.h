// Calibration of the attention of one block, of any kind, and the norm in front of it: what enters
// each linear is observed in both models while they run.
//
// Shapes: L tokens of a sequence, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ranks.h"
#include "calibrate/unit.h"
#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"

namespace blockptq {

/// The residual streams of sequences, in both models.
struct SequenceSource {
  int64_t sequences = 0;
  std::function<at::Tensor(int64_t index)> float_LD;
  std::function<at::Tensor(int64_t index)> quant_LD;
};

/// What both models' attention adds to the residual streams, by sequence: undefined for those of
/// other ranks; empty where it is not known.
struct AttentionOutputs {
  std::vector<at::Tensor> float_LD;
  std::vector<at::Tensor> quant_LD;
};

/// Norm and attention.
class NormedAttention {
 public:
  NormedAttention(const Model& model, const Piece& piece, int64_t block,
                  nn::AttentionOptions options);
  /// What is added to the residual stream states_LD.
  at::Tensor forward(const Exec& exec, const at::Tensor& states_LD) const;

 private:
  at::Tensor norm_D_;
  double eps_;
  nn::AttentionOptions options_;
  std::unique_ptr<nn::Attention> attention_;
};

/// The attention of a block with the weights of the float model, and with other ones.
class AttentionUnit {
 public:
  /// `piece`: the block's attention. The other arguments must outlive this.
  AttentionUnit(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                const Model& model, Piece piece, int64_t block, nn::AttentionOptions options,
                Ranks& ranks);

  std::vector<Weight> tensors() const { return piece_.tensors(); }

  /// Chooses the integers of its weights, on all ranks together, which have the same sequences.
  /// `outputs` becomes those under the result: the sequences need not be run again.
  UnitResult calibrate(const SequenceSource& sequences, AttentionOutputs& outputs) const;

  NormedAttention float_attention() const { return attention(piece_); }
  NormedAttention quantized_attention(const UnitResult& result) const;

 private:
  /// Features that the piece has with a factor while the unit is calibrated.
  struct Fold {
    ScalePoint point;
    at::Tensor factors_F;  ///< powers of two
  };

  NormedAttention attention(const Piece& piece) const;
  /// As the quantized model has it in front of rounding.
  NormedAttention unrounded_attention() const;
  std::vector<Weight> quantized_weights() const;
  /// Folds the recipe's smoothing into the piece: the float model stays the same to the bit.
  std::vector<Fold> smooth(const SequenceSource& sequences) const;
  /// Factors for what the readers of `point` see.
  at::Tensor balance(const ScalePoint& point, const at::Tensor& x_TI) const;
  void choose(const SequenceSource& sequences, UnitResult& result, AttentionOutputs& outputs) const;
  /// The factor of the latent with the least error of the output, where there is a quantized one.
  void learn_latent_clip(const SequenceSource& sequences, int64_t max_tokens,
                         UnitResult& result) const;
  /// Keeps plain rounding where that is better.
  void measure(const SequenceSource& sequences, UnitResult& result,
               AttentionOutputs& outputs) const;

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const Model& model_;
  Piece piece_;
  int64_t block_;
  nn::AttentionOptions options_;
  Ranks& ranks_;
};

}  // namespace blockptq
