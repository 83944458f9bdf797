#include "calibrate/unit_memory.h"

#include <algorithm>
#include <map>
#include <utility>

#include "calibrate/refinement.h"
#include "calibrate/statistics.h"
#include "quant/algorithms/algorithms.h"

namespace blockptq {
namespace {

constexpr int64_t kFloat = sizeof(float);

/// Weights that see the same input.
struct InputGroup {
  int64_t features = 0;
  int64_t channels = 0;
  int64_t weights = 0;
  bool second_order = false;

  /// H, and C where it is used; then H in the order of rounding and its factor.
  int64_t matrices() const { return (second_order ? 2 : 1) * statistics_bytes(features); }
};

/// The weights of a piece: those in front (of the latent, of attention, or gate and up), and the
/// last one (o_proj or down_proj), which alone sees its input.
struct PieceWeights {
  int64_t quantized = 0;
  std::map<std::pair<bool, int64_t>, InputGroup> groups;

  PieceWeights(const PieceSpec& piece, const CalibrationOptions& options) {
    for (const TensorSlice& slice : piece.tensors) {
      const ModelTensor& tensor = slice.spec;
      if (tensor.shape.size() != 2 || tensor.keep_fp32) {
        continue;
      }
      const int64_t elements = tensor.shape[0] * tensor.shape[1];
      const LinearScheme scheme = options.recipe.linear(tensor.role, tensor.name);
      if (scheme.weight_bits == kFloatBits) {
        continue;
      }
      quantized += elements;
      const bool last = tensor.role.ends_with("o_proj") || tensor.role.ends_with("down_proj");
      InputGroup& group = groups[{last, tensor.shape[1]}];
      const Json& rule = scheme.algorithm.is_null() ? options.default_algorithm : scheme.algorithm;
      group.features = tensor.shape[1];
      group.channels += tensor.shape[0];
      group.weights += 1;
      group.second_order = group.second_order || uses_cross_sums(rule.value("name", ""));
    }
  }
};

/// Rounding of a group, beside its matrices (quant/algorithms/gptq.h): the cross sums as a factor
/// of products, the matrices in BF16, and for a slab of channels the target, what it is solved
/// from, and the slab under all scales.
int64_t rounding_bytes(const InputGroup& group) {
  constexpr int64_t kSlab = int64_t{1} << 22;  // elements
  constexpr int64_t kScales = 11;
  constexpr int64_t kLeast = 64;  // channels
  const int64_t elements = group.channels * group.features;
  if (!group.second_order) {
    return group.matrices() / 2 + elements + 4 * kFloat * std::min(kSlab, elements);
  }
  const int64_t solved = kFloat * std::min(kSlab, elements);
  const int64_t together = std::max(kSlab, kScales * kLeast * group.features);
  const int64_t tried = std::min(together, kScales * elements);
  const int64_t slab = std::max(14 * tried, 26 * std::min(kSlab, elements));
  return group.matrices() / 2 + solved +
         std::max(3 * solved, elements + group.matrices() / 4 + slab);
}

/// Inputs of both models in fp32, and their difference.
int64_t observed_bytes(int64_t tokens, int64_t features) {
  return 4 * tokens * features * kFloat;
}

/// Takes the larger.
void raise(UnitMemory& most, int64_t statistics, int64_t other) {
  if (statistics + other > most.bytes()) {
    most = {statistics, other};
  }
}

UnitMemory attention_memory(const PieceWeights& weights, const PassShape& shape,
                            int64_t temporary) {
  int64_t sums = 0;
  int64_t rounding = 0;
  int64_t widest = 0;
  for (const auto& [key, group] : weights.groups) {
    sums += group.matrices();
    rounding = std::max(rounding, rounding_bytes(group));
    widest = std::max(widest, group.features);
  }
  const int64_t codes = weights.quantized;
  UnitMemory most;
  raise(most, sums, temporary + observed_bytes(shape.seq_len, widest));
  raise(most, sums, codes + rounding);
  raise(most, 0, 2 * codes + temporary);  // plain rounding too
  return most;
}

/// What the refinement of an MLP works on.
struct Refined {
  int64_t tokens = 0;
  bool weights = false;  ///< whole ones in fp32
};

Refined refined(const PieceSpec& piece, const CalibrationOptions& options) {
  const ModelTensor& first = piece.tensors.front().spec;
  const Refinement refinement =
      refinement_of(options.recipe.linear(first.role, first.name), options.default_refinement);
  if (const auto* clips = std::get_if<ClipLearnerOptions>(&refinement)) {
    return {clips->max_tokens, false};
  }
  const auto* rounding = std::get_if<RoundLearnerOptions>(&refinement);
  return rounding == nullptr ? Refined() : Refined{rounding->max_tokens, true};
}

/// What the block keeps of the inputs of all its experts comes on top of an expert's. `kept`: what
/// a refinement holds.
UnitMemory mlp_memory(const PieceWeights& weights, const PassShape& shape, int64_t temporary,
                      int64_t tokens, const Refined& kept, bool expert) {
  const int64_t codes = weights.quantized;
  int64_t block = 0;
  int64_t widest = 0;
  UnitMemory most;
  for (const auto& [key, group] : weights.groups) {
    const bool first = !key.first;
    widest = std::max(widest, group.features);
    if (expert && first) {  // its cross sums are of the compute type
      const int64_t one = statistics_bytes(group.features);
      block += group.second_order ? one + one * shape.element_bytes / kFloat : one;
    }
    raise(most, block + group.matrices(),
          (first ? 0 : codes) + temporary + observed_bytes(tokens, group.features));
    raise(most, block + group.matrices(), codes + rounding_bytes(group));
  }
  raise(most, block, 2 * codes + temporary);
  if (kept.tokens > 0) {
    raise(most, block,
          codes + (kept.weights ? kFloat * weights.quantized : 0) +
              observed_bytes(kept.tokens, widest));
  }
  return most;
}

}  // namespace

UnitMemory unit_memory(const PieceSpec& piece, const CalibrationOptions& options,
                       const PassShape& shape, int64_t observed_tokens) {
  const PieceWeights weights(piece, options);
  const int64_t temporary = temporary_bytes(piece, shape);
  const int64_t observed = std::min(observed_tokens, shape.slice_tokens);
  const auto mlp = [&](bool expert) {
    Refined kept = refined(piece, options);
    kept.tokens = std::min(observed_tokens, kept.tokens);
    return mlp_memory(weights, shape, temporary, observed, kept, expert);
  };
  switch (piece.tensors.front().spec.unit) {
    case Unit::attention:
      return attention_memory(weights, shape, temporary);
    case Unit::feed_forward:
      return mlp(false);
    case Unit::expert:
      return mlp(true);
    default:
      return {0, temporary};
  }
}

}  // namespace blockptq
