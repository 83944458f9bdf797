// What a deployed checkpoint will hold, known before anything is written: every tensor with its
// name, dtype and shape, and the shard that it lies in.
//
// A shard never spans two parts of the model (the embedding, a block, the head, an MTP layer), so
// that a part can be written, and after an interruption skipped, on its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/formats/output_format.h"
#include "models/model.h"
#include "quant/recipe.h"
#include "run/parameters.h"

namespace blockptq {

/// One tensor of the source with what stands for it in the output, or a constant of the format.
struct PlannedTensor {
  OutputTensor tensor;
  const StoredTensor* source = nullptr;  ///< null for a constant
  std::vector<TensorSpec> specs;         ///< what is written, in this order
  std::string constant;                  ///< bytes of a constant

  /// Bytes of the source go to the output unchanged.
  bool copied() const { return source != nullptr && !tensor.quantized() && source->bits == 0; }
};

struct PlannedShard {
  std::string name;  ///< model-00001-of-00042.safetensors
  std::string part;  ///< "embedding", "block 3", "head", "other"
  size_t begin = 0;  ///< tensors [begin, end) of the plan
  size_t end = 0;
  int64_t nbytes = 0;  ///< of the file
};

struct OutputPlan {
  const OutputFormat* format = nullptr;
  OutputScheme scheme;
  bool untied_head = false;  ///< the source's output head is its embedding, this one's is not
  /// Learned clips that the format has no place for, by the weight behind them.
  std::vector<std::string> clips_left_out;
  std::vector<PlannedTensor> tensors;
  std::vector<PlannedShard> shards;
  int64_t tensor_bytes = 0;
  int64_t file_bytes = 0;

  std::vector<TensorSpec> specs(const PlannedShard& shard) const;
};

/// The metadata of every shard, as the safetensors library writes it.
Metadata shard_metadata();

/// The plan for `source`, which `model` belongs to. Error for what the format cannot carry, and for
/// a source that is itself of a layout with tensors besides the weights.
OutputPlan plan_output(const Checkpoint& source, const Model& model, const Recipe& recipe,
                       const OutputFormat& format, const SiteFactors& clips,
                       int64_t max_shard_bytes);
/// The plan for the integers of the deployed folder `source`, which was made by this recipe with
/// these clips. Error for what the format cannot carry, and when the folder holds others.
OutputPlan plan_conversion(const Checkpoint& source, const Model& model, const Recipe& recipe,
                           const OutputFormat& format, const SiteFactors& clips,
                           int64_t max_shard_bytes);

}  // namespace blockptq
