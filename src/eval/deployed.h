// Deployed folders: integer weights whose folder wants integer activations in front of them,
// computed as a server would, or by the floating-point twin of that.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "eval/arithmetic.h"
#include "models/model.h"
#include "quant/recipe.h"
#include "quant/transforms/rotate.h"

namespace blockptq {

struct DeployedOptions {
  /// Weights dequantized, activations quantized and dequantized, products in floating point.
  bool fake_quant = false;
  /// What the evaluation computes in. In fp32 such products are exact but for their last rounding
  /// (value_linear), so that they can be compared with those of integers.
  at::ScalarType type = at::kFloat;
  /// Whether latent, caches and indexer are int8; nothing: as blockptq.json says, else they are.
  std::optional<bool> int8_cache = std::nullopt;
};

/// Whether the folder wants integer activations anywhere.
bool is_deployed(const Checkpoint& checkpoint);

/// The basis of the folder's residual stream, in that of the model that it was made from; nothing:
/// the same.
std::optional<Rotation> folder_rotation(const Checkpoint& checkpoint, const Model& model);

/// The recipe that the folder was made with, as far as it shows.
Recipe deployed_recipe(const Checkpoint& checkpoint, const Model& model,
                       const DeployedOptions& options);

/// Error naming the tensor for activations that are not symmetric integers with a dynamic scale per
/// token, and, in integers, for weights with groups or zero points.
Arithmetic deployed_arithmetic(const Checkpoint& checkpoint, const Model& model,
                               const DeployedOptions& options);

/// "w4a8c8": the fewest bits of weights, of their inputs and of cached vectors.
std::string quant_type(const Recipe& recipe, const Model& model);

}  // namespace blockptq
