// A finished shard against what it was made from.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "deploy/plan.h"
#include "deploy/weight_source.h"

namespace blockptq {

/// Relative errors by the name of what was quantized, or transformed and rounded: ||W - W^|| /
/// ||W|| (Frobenius norms), 0 for a weight of zeros.
using RelativeErrors = std::map<std::string, double>;

/// Reads the shard at `path` as a checkpoint would be read and compares every tensor: quantized
/// ones with `weights.values`, copied ones byte by byte. Error naming the tensor when a copy
/// differs, a value is not finite, or nothing is left of a weight (relative error >= 1; any error
/// where `weights.exact()`, of which none are returned).
RelativeErrors verify_shard(const std::filesystem::path& path, const OutputPlan& plan,
                            const PlannedShard& shard, const Checkpoint& source,
                            const WeightSource& weights, const Json& quantization_config);

}  // namespace blockptq
