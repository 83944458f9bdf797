// The residual stream of a model in another basis (quant/transforms/rotate.h): what becomes of each
// tensor of its table, so that the model computes the same function.
//
//   reader  W diag(g) Q     g: the weight of the norm through which it reads the stream
//   writer  Q^T W
//   rows of the stream (an embedding)  E Q
//   norm of the stream      ones: its weight is in its readers
//
// A norm that reads what another one has normalised (that of an MTP layer, behind the final norm)
// sees the first one's output without its weight g1, whose size r = rms(g1 n(h)) differs from token
// to token. Its readers become W diag(g1 g2) c Q, c standing for 1 / r: there, and only there, the
// rotated model is not exactly the same (docs/rounding.md).
//
// Shapes: D hidden, O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "models/model.h"
#include "models/piece.h"
#include "quant/recipe.h"
#include "quant/transforms/rotate.h"

namespace blockptq {

class StreamRotation {
 public:
  /// Reads the norms of the stream. The output head must not be tied: it is not what the embedding
  /// becomes.
  StreamRotation(const Checkpoint& checkpoint, const Model& model, uint64_t seed);

  /// Whether the tensor is another one in the rotated model.
  bool changes(std::string_view name) const;
  /// What becomes of the tensor `name`, which changes: fp32, from fp32. `w`: all of it, or some
  /// rows of one that does not write to the stream. `chained`: c, see above.
  at::Tensor apply(std::string_view name, const at::Tensor& w, double chained = 1) const;
  /// All tensors that change, but for those that feed an MTP layer.
  WeightTransform transform() const;

  /// States [..., D] in the basis of the rotated model, and back: fp32.
  at::Tensor rotate(const at::Tensor& states) const { return rotation_.apply(states); }
  at::Tensor rotate_back(const at::Tensor& states) const { return rotation_.apply_inverse(states); }
  /// The weight of a norm of the stream before it becomes ones, fp32 [D].
  const at::Tensor& norm(std::string_view name) const;

 private:
  at::Tensor gain(const std::string& norm, double chained) const;

  Rotation rotation_;
  std::map<std::string, ModelTensor, std::less<>> tensors_;  ///< that touch the stream
  std::map<std::string, at::Tensor, std::less<>> norms_;
};

/// What the recipe asks for; null: no rotation.
std::unique_ptr<const StreamRotation> make_rotation(const Checkpoint& checkpoint,
                                                    const Model& model, const Recipe& recipe);

}  // namespace blockptq
