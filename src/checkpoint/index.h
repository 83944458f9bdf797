// Which files of a checkpoint folder hold the weights: `model.safetensors.index.json` with its
// shards, or a single `model.safetensors`. The index wins when both are there.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/safetensors.h"

namespace blockptq {

inline constexpr std::string_view kIndexName = "model.safetensors.index.json";
inline constexpr std::string_view kSingleShardName = "model.safetensors";

/// Tensor name -> shard name, which is a plain file name that ends in ".safetensors".
using WeightMap = std::map<std::string, std::string>;

/// Parses the text of an index; `origin` names it in errors. Error for everything but an object
/// with a `weight_map` of plain file names.
WeightMap parse_index(std::string_view text, std::string_view origin);

/// The shards of a folder, opened, in the order of their names. Error when the folder has no
/// weights, a shard is missing or is a link that leaves the folder, the index and the shards
/// disagree, or two shards hold the same tensor.
std::vector<std::unique_ptr<SafetensorsFile>> open_shards(const std::filesystem::path& folder);

}  // namespace blockptq
