#include "deploy/kept_tensors.h"

#include <functional>
#include <map>

namespace blockptq {
namespace {

void for_unquantized(const OutputPlan& plan, const PlannedShard& shard,
                     const std::function<void(const StoredTensor&)>& use) {
  for (size_t i = shard.begin; i < shard.end; ++i) {
    const PlannedTensor& tensor = plan.tensors[i];
    if (tensor.source != nullptr && !tensor.tensor.quantized()) {
      use(*tensor.source);
    }
  }
}

/// What is in memory at the same time.
std::string group_of(const PlannedShard& shard) {
  return shard.part.starts_with("block ") ? shard.part : "rest";
}

}  // namespace

KeptTensors::KeptTensors(const Checkpoint& source, const OutputPlan& plan, int64_t max_bytes)
    : source_(source), plan_(plan) {
  std::map<std::string, int64_t> bytes;
  for (const PlannedShard& shard : plan.shards) {
    for_unquantized(plan, shard, [&](const StoredTensor& tensor) {
      for (const RawTensor& part : tensor.parts) {
        bytes[group_of(shard)] += part.info->nbytes;
      }
    });
  }
  for (const PlannedShard& shard : plan.shards) {
    if (bytes[group_of(shard)] <= max_bytes) {
      for_unquantized(plan, shard, [&](const StoredTensor& tensor) { source.keep(tensor); });
    }
  }
}

void KeptTensors::drop(const std::string& part) const {
  for (const PlannedShard& shard : plan_.shards) {
    if (shard.part == part) {
      for_unquantized(plan_, shard, [&](const StoredTensor& tensor) { source_.drop(tensor); });
    }
  }
}

}  // namespace blockptq
