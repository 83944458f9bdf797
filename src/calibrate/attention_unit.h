// Calibration of the attention of one block, of any kind: what enters each linear is observed in
// both models while they run.
//
// Shapes: L tokens of a sequence, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "calibrate/unit.h"
#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"

namespace blockptq {

/// Sequences that an attention sees, normalised, in both models.
struct SequenceSource {
  int64_t sequences = 0;
  std::function<at::Tensor(int64_t index)> float_LD;
  std::function<at::Tensor(int64_t index)> quant_LD;
};

/// The attention of a block with the weights of the float model, and with other ones.
class AttentionUnit {
 public:
  /// `piece`: the block's attention in fp32; must outlive this.
  AttentionUnit(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                const Model& model, const Piece& piece, int64_t block,
                nn::AttentionOptions options);

  /// Chooses the integers of its weights.
  UnitResult calibrate(const SequenceSource& sequences) const;

  /// With the weights of the float model, and dequantized where `chosen` has them.
  std::unique_ptr<nn::Attention> float_attention() const;
  std::unique_ptr<nn::Attention> quantized_attention(
      const std::map<std::string, QTensor>& chosen) const;

 private:
  /// The factor of the latent with the least error of the output, where there is a quantized one.
  void learn_latent_clip(const SequenceSource& sequences, int64_t max_tokens,
                         UnitResult& result) const;
  void measure(const SequenceSource& sequences, const std::map<std::string, QTensor>& nearest,
               UnitResult& result) const;

  const CalibrationContext& context_;
  const FakeQuantExec& quant_exec_;
  const Model& model_;
  const Piece& piece_;
  int64_t block_;
  nn::AttentionOptions options_;
};

}  // namespace blockptq
