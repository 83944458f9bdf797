#include "run/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace blockptq {
namespace {

constexpr std::string_view kStatesPrefix = "states_";
constexpr const char* kEntry = "entry";  // in the metadata of a unit's file

/// The folder, created if need be.
const std::filesystem::path& made(const std::filesystem::path& folder) {
  make_folder(folder);
  return folder;
}

std::string text_of(const Json& value) {
  const std::string text = value.dump();
  constexpr size_t kShown = 80;
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

void remove_files(const std::filesystem::path& folder, std::string_view prefix) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      found.push_back(entry.path());
    }
  }
  for (const auto& path : found) {
    std::filesystem::remove(path);
  }
}

/// Files states_NNN.safetensors of the folder by block.
std::vector<int64_t> saved_blocks(const std::filesystem::path& folder) {
  std::vector<int64_t> blocks;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kStatesPrefix) && entry.path().extension() == ".safetensors") {
      int64_t block = 0;
      std::from_chars(name.data() + kStatesPrefix.size(), name.data() + name.size(), block);
      blocks.push_back(block);
    }
  }
  std::sort(blocks.begin(), blocks.end());
  return blocks;
}

}  // namespace

void check_same_run(const std::filesystem::path& path, const Json& found, const Json& wanted) {
  for (const auto& [key, value] : wanted.items()) {
    const bool known = found.is_object() && found.contains(key);
    if (known && found[key] == value) {
      continue;
    }
    // Of a long value, the first place that differs.
    const Json first = known ? Json::diff(found[key], value).at(0)
                             : Json{{"op", "add"}, {"path", ""}, {"value", value}};
    const std::string at = first["path"].get<std::string>();
    const bool had = known && first["op"] != "add";
    fail(
        "{}: {}{}: the folder holds a run with {}, this one has {}; use --restart to throw the "
        "earlier work away, or another folder",
        path.string(), key, at, had ? text_of(found[key].at(Json::json_pointer(at))) : "none",
        first.contains("value") ? text_of(first["value"]) : "none");
  }
}

FolderLock::FolderLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / ".lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check(descriptor_ >= 0, "{}: cannot create the lock file: the folder must be writable",
        path.string());
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor_);
    fail("{}: another process works in this folder", folder.string());
  }
}

FolderLock::~FolderLock() {
  ::close(descriptor_);
}

RunFolder::RunFolder(const std::filesystem::path& folder, const Json& description, bool restart,
                     Ranks& ranks)
    : folder_(folder) {
  const std::filesystem::path sign = folder / ".rank_0";
  std::string text;
  if (ranks.rank() == 0) {
    const AbandonOnError abandon_on_error(ranks);
    lock_.emplace(made(folder));
    open(description, restart);
    if (ranks.shared()) {
      text = std::to_string(std::random_device()());
      write_file_atomically(sign, text);
    }
  }
  if (ranks.shared()) {
    broadcast(ranks, text, 0);
    const bool seen = std::filesystem::exists(sign) && read_file(sign) == text;
    const bool all = sum(ranks, seen ? 0 : 1) == 0;
    if (lock_) {
      std::filesystem::remove(sign);
    }
    check(all, "{}: expected one folder that all ranks of the job share", folder.string());
  }
}

void RunFolder::open(const Json& description, bool restart) {
  remove_unfinished(folder_);
  const std::filesystem::path path = folder_ / "run.json";
  const bool continues = std::filesystem::exists(path) && !restart;
  if (continues) {
    check_same_run(path, parse_json(read_file(path), path.string()), description);
  }
  std::filesystem::remove(folder_ / kResultName);
  if (continues) {
    return;
  }
  for (const char* prefix : {"states_", "block_", "unit_", "quant_parameters_", "journal."}) {
    remove_files(folder_, prefix);
  }
  write_file_atomically(path, description.dump(2) + "\n");
}

std::filesystem::path RunFolder::states_path(int64_t block) const {
  return folder_ / fmt::format("{}{:03}.safetensors", kStatesPrefix, block);
}

std::optional<NamedTensors> RunFolder::load_states(int64_t block) const {
  const std::filesystem::path path = states_path(block);
  return std::filesystem::exists(path) ? std::optional(read_tensors(path)) : std::nullopt;
}

std::filesystem::path RunFolder::unit_path(int64_t block, const std::string& unit) const {
  return folder_ / fmt::format("unit_{:03}_{}.safetensors", block, unit);
}

void RunFolder::keep_unit(const Json& entry, const NamedTensors& learned) const {
  write_tensors(unit_path(entry.at("block").get<int64_t>(), entry.at("unit").get<std::string>()),
                learned, {{kEntry, entry.dump()}});
}

Json RunFolder::unit_entry(int64_t block, const std::string& unit) const {
  const std::filesystem::path path = unit_path(block, unit);
  const SafetensorsFile file(path);
  return parse_json(file.header().metadata.at(kEntry), path.string());
}

void RunFolder::remove_units(int64_t block) const {
  remove_files(folder_, fmt::format("unit_{:03}_", block));
}

std::optional<int64_t> RunFolder::newest_states(int64_t end) const {
  std::optional<int64_t> newest;
  for (const int64_t block : saved_blocks(folder_)) {
    newest = block <= end ? block : newest;
  }
  return newest;
}

void RunFolder::save_states(int64_t block, const NamedTensors& states) const {
  write_tensors(states_path(block), states);
  for (const int64_t other : saved_blocks(folder_)) {
    if (other < block) {
      std::filesystem::remove(states_path(other));
    }
  }
}

}  // namespace blockptq
