// How an evaluation computes: in floating point, or with fake quantization of a recipe and of
// learned parameters.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "exec/exec.h"
#include "models/piece.h"
#include "quant/recipe.h"

namespace blockptq {

struct Arithmetic {
  std::shared_ptr<const Exec> exec;
  std::optional<WeightTransform> transform;  ///< of weights, as they are loaded
  Json description;                          ///< identifies it, for run folders
  WeightFilter integers = {};                ///< weights that are held as the integers they are
};

Arithmetic float_arithmetic();

/// Which half of every block is quantized.
enum class TrainMode { mla, moe, block };

/// `recipe` without what `mode` leaves in floating point.
Recipe restrict_recipe(const Recipe& recipe, TrainMode mode);

/// Learned parameters, and which of them are used.
struct LearnedParameters {
  std::vector<std::filesystem::path> folders;
  bool weights = true;      ///< clips, scales and codes of weights
  bool activations = true;  ///< clips of activations and cache points
};

/// Fake quantization of `checkpoint` as `recipe` says, with the learned parameters where there are
/// some, by plain rounding elsewhere. Error for parameters of another model.
Arithmetic fake_quant_arithmetic(const Checkpoint& checkpoint, const Recipe& recipe,
                                 const LearnedParameters& learned);

}  // namespace blockptq
