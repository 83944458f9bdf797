// A part of a block whose clips the public DeepSeek-V3.2 sample learns: what it should put out, and
// what it puts out with the clips as they are.
//
// As under the sample's autocast, products are in the compute type, quantizers (of the weights as
// they come, best in fp32) and the loss in fp32.
//
// Shapes: C sequences, L tokens of each, D hidden, O output channels.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "calibrate/amct.h"
#include "exec/fake_quant_exec.h"
#include "models/piece.h"
#include "nn/attention.h"
#include "nn/mlp.h"
#include "run/tensor_file.h"

namespace blockptq {

class AmctUnit {
 public:
  AmctUnit() = default;
  virtual ~AmctUnit() = default;
  AmctUnit(const AmctUnit&) = delete;
  AmctUnit& operator=(const AmctUnit&) = delete;

  /// The unquantized outputs, fp32 [C, L, D].
  virtual at::Tensor targets(const at::Tensor& inputs_CLD) const = 0;
  /// The quantized outputs, fp32 [C, L, D]; gradients to learned().
  virtual at::Tensor forward(const at::Tensor& inputs_CLD) const = 0;

  /// The mean squared error over inputs_CLD; adds its gradients, scaled by 1 / loss as the sample
  /// has it, to learned(). A loss of 0 has none. Error when it is not finite.
  double backward(const at::Tensor& inputs_CLD, const at::Tensor& targets_CLD) const;
  /// The mean squared error of inputs_CLD.
  at::Tensor loss(const at::Tensor& inputs_CLD, const at::Tensor& targets_CLD) const;

  /// The logits that are learned.
  const std::vector<at::Tensor>& learned() const { return learned_; }
  /// All logits, as run/parameters.h names them.
  const std::map<std::string, at::Tensor>& logits() const { return logits_; }
  /// The same without their gradients.
  NamedTensors parameters() const;

 protected:
  /// Logits at their initial value, 4, where `like` is.
  at::Tensor add_logits(const std::string& name, int64_t count, bool learn, const at::Tensor& like);

 private:
  std::map<std::string, at::Tensor> logits_;
  std::vector<at::Tensor> learned_;
};

/// A routed expert, the shared experts or a dense MLP (whose weights are never clipped): a clip on
/// both sides of every output channel of the three weights, and one on each of the two inputs.
class AmctMlp final : public AmctUnit {
 public:
  AmctMlp(const nn::Mlp& mlp, const AmctOptions& options);

  /// With the weights clipped at their initial factors, as the sample has it.
  at::Tensor targets(const at::Tensor& inputs_CLD) const override;
  at::Tensor forward(const at::Tensor& inputs_CLD) const override;

 private:
  struct Linear {
    Weight weight;  ///< where it is not clipped: as the student computes with it
    int bits = kFloatBits;
    at::Tensor low_O;  ///< logits; undefined where the weight is not clipped
    at::Tensor high_O;
    at::Tensor input;  ///< logit of the input; undefined where that has none of its own
  };

  Linear make_linear(const Weight& weight, bool own_input, const AmctOptions& options);
  at::Tensor clipped(const Linear& linear) const;

  nn::Mlp mlp_;
  Recipe recipe_;
  at::ScalarType type_;
  Linear gate_;
  Linear up_;
  Linear down_;
};

/// The attention of a block: a clip on the latent as it is read back from the cache.
class AmctAttention final : public AmctUnit {
 public:
  /// Error for an attention without latent, and for one that the recipe leaves in floating point.
  AmctAttention(const Model& model, const Piece& piece, int64_t block, const AmctOptions& options);

  at::Tensor targets(const at::Tensor& inputs_CLD) const override;
  at::Tensor forward(const at::Tensor& inputs_CLD) const override;

 private:
  const Model& model_;
  Piece piece_;
  int64_t block_;
  nn::AttentionOptions options_;
  Recipe recipe_;
  at::ScalarType type_;
  std::string latent_;  ///< the weight behind the latent
  at::Tensor logit_;
  std::unique_ptr<nn::Attention> quantized_;
};

}  // namespace blockptq
