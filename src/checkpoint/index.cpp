#include "checkpoint/index.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/json.h"

namespace blockptq {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kShardSuffix = ".safetensors";

/// A name from an index is untrusted: it must stay in the folder and be of the kind we read.
void check_shard_name(const std::string& name, const std::string& where) {
  const bool plain = !name.empty() && name.find_first_of("/\\") == std::string::npos &&
                     name.find('\0') == std::string::npos && name != "." && name != "..";
  check(plain, "{}: expected a plain file name, found {:?}", where, name);
  check(std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20; }),
        "{}: expected a file name without control characters, found {:?}", where, name);
  check(name.ends_with(kShardSuffix), "{}: expected a file name that ends in {}, found {:?}", where,
        kShardSuffix, name);
}

bool lies_in(const fs::path& path, const fs::path& folder) {
  const auto [end, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return end == folder.end();
}

/// The shard's path, after a look at where links lead.
fs::path resolve_shard(const fs::path& folder, const std::string& name) {
  fs::path path = folder / name;
  std::error_code status;
  check(fs::exists(path, status), "{}: shard is missing", path.string());
  const fs::path home = fs::canonical(folder);
  const fs::path target = fs::canonical(path, status);
  // The cache of huggingface_hub: snapshots/<revision>/ links to blobs/ of the same model.
  const bool in_hub_cache = home.parent_path().filename() == "snapshots" &&
                            lies_in(target, home.parent_path().parent_path() / "blobs");
  check(!status && (lies_in(target, home) || in_hub_cache),
        "{}: expected a file in the folder, found a link that leaves it, to {}", path.string(),
        target.string());
  return path;
}

/// Error when shards are missing, as in a folder that is still being copied or downloaded.
void check_all_there(const fs::path& folder, const std::set<std::string>& names) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    std::error_code status;
    if (!fs::exists(folder / name, status)) {
      missing.push_back(name);
    }
  }
  if (!missing.empty()) {
    fail(
        "{}: {} of {} shards are missing, this one first: a partly downloaded checkpoint; complete "
        "the download",
        (folder / missing.front()).string(), missing.size(), names.size());
  }
}

/// What a folder without weights holds instead, as the end of a message.
std::string other_weights(const fs::path& folder) {
  std::set<std::string> suffixes;
  std::error_code status;
  if (fs::exists(folder / "run.json", status)) {
    return " (it is the folder of a run)";
  }
  for (const auto& entry : fs::directory_iterator(folder, status)) {
    const std::string suffix = entry.path().extension().string();
    if (suffix == kShardSuffix) {
      return " (there are shards, but no index: a partly downloaded checkpoint)";
    }
    for (const std::string_view unsafe : {".bin", ".pt", ".pth", ".ckpt", ".pkl"}) {
      if (suffix == unsafe) {
        suffixes.insert(suffix);
      }
    }
  }
  return suffixes.empty() ? ""
                          : fmt::format(
                                " ({} files are pickles and are never read; convert them "
                                "to safetensors)",
                                fmt::join(suffixes, ", "));
}

void check_folder(const fs::path& folder) {
  std::error_code status;
  check(
      fs::exists(folder, status),
      "{}: no such folder; expected a checkpoint on this machine: download a model of a hub first",
      folder.string());
  check(fs::is_directory(folder, status), "{}: expected a checkpoint folder, found a file",
        folder.string());
}

/// The index and the shards must list the same tensors.
void check_agreement(const WeightMap& weight_map, const fs::path& index,
                     const std::vector<std::unique_ptr<SafetensorsFile>>& shards) {
  std::unordered_map<std::string_view, const SafetensorsFile*> holder;
  for (const auto& shard : shards) {
    for (const TensorInfo& tensor : shard->header().tensors) {
      const auto [first, added] = holder.emplace(tensor.name, shard.get());
      check(added, "{}: tensor {}: also in {}", shard->path().string(), tensor.name,
            first->second->path().filename().string());
      const auto listed = weight_map.find(tensor.name);
      check(listed != weight_map.end(), "{}: tensor {}: not listed in {}", shard->path().string(),
            tensor.name, index.filename().string());
    }
  }
  for (const auto& [name, shard] : weight_map) {
    const auto held = holder.find(name);
    const bool as_listed = held != holder.end() && held->second->path().filename() == shard;
    check(as_listed, "{}: tensor {}: listed in {}, which lacks it", index.string(), name, shard);
  }
}

}  // namespace

WeightMap parse_index(std::string_view text, std::string_view origin) {
  const Json json = parse_json(text, origin);
  const JsonView map = JsonView(json, std::string(origin)).at("weight_map");
  map.expect_object();
  WeightMap weight_map;
  for (const auto& [name, value] : map.raw().items()) {
    const JsonView shard = map.at(name);
    check_shard_name(shard.string(), shard.where());
    weight_map.emplace(name, shard.string());
  }
  return weight_map;
}

std::vector<std::unique_ptr<SafetensorsFile>> open_shards(const fs::path& folder) {
  check_folder(folder);
  std::vector<std::unique_ptr<SafetensorsFile>> shards;
  const fs::path index = folder / kIndexName;
  std::error_code status;
  if (!fs::exists(index, status)) {
    check(fs::exists(fs::symlink_status(folder / kSingleShardName, status)),
          "{}: no weights: expected {} or {}{}", folder.string(), kIndexName, kSingleShardName,
          other_weights(folder));
    shards.push_back(
        std::make_unique<SafetensorsFile>(resolve_shard(folder, std::string(kSingleShardName))));
    return shards;
  }
  const WeightMap weight_map = parse_index(read_file(index), index.string());
  std::set<std::string> names;
  for (const auto& [tensor, shard] : weight_map) {
    names.insert(shard);
  }
  check_all_there(folder, names);
  for (const std::string& name : names) {
    shards.push_back(std::make_unique<SafetensorsFile>(resolve_shard(folder, name)));
  }
  check_agreement(weight_map, index, shards);
  return shards;
}

}  // namespace blockptq
