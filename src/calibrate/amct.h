// The learning procedure of the public DeepSeek-V3.2 sample (`--compat amct`), one unit at a time:
// learned clips of weights (LWC of OmniQuant, arXiv 2308.13137) and activations (LAC of FlatQuant,
// arXiv 2410.09426), all tokens to every expert, in fixed order, the last value kept.
// docs/training.md says what is reproduced and what is not.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "models/model.h"
#include "models/piece.h"
#include "nn/attention.h"
#include "nn/mlp.h"
#include "quant/recipe.h"
#include "run/tensor_file.h"

namespace blockptq {

struct AmctOptions {
  Recipe recipe;  ///< bits of weights, activations and cache points
  int64_t epochs = 25;
  double base_lr = 1e-2;  ///< the logits learn at 10 times this, down to a thousandth of it
  int64_t bsz = 1;        ///< sequences of a step
  bool lwc = true;        ///< learn clips of weights; else weights are rounded plainly
  bool lac = true;        ///< learn clips of activations; else they stay at their initial factor
  at::ScalarType type = at::kBFloat16;  ///< of products (bf16: as under the sample's autocast)
  nn::AttentionOptions attention;
};

/// Losses are mean squared errors of a sequence against the unit's target.
struct AmctReport {
  int64_t sequences = 0;
  int64_t tokens = 0;
  double loss_before = 0;  ///< mean over the sequences at the initial clips
  double loss_after = 0;   ///< and at the learned ones
  /// Per epoch the sum over the sequences, taken while the clips move: what the sample logs as
  /// "mse".
  std::vector<double> epoch_sums;
};

struct AmctResult {
  NamedTensors parameters;  ///< logits of the clips
  AmctReport report;
};

/// A routed expert, shared experts or a dense MLP. inputs_CLD: what enters it in the float model,
/// normalised. Error when a loss is not finite.
AmctResult learn_mlp_amct(const nn::Mlp& mlp, const at::Tensor& inputs_CLD,
                          const AmctOptions& options);

/// The attention of `block`, whose tensors `piece` holds. Error as above, and when there is no
/// quantized latent.
AmctResult learn_attention_amct(const Model& model, const Piece& piece, int64_t block,
                                const at::Tensor& inputs_CLD, const AmctOptions& options);

}  // namespace blockptq
