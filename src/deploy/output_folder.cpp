#include "deploy/output_folder.h"

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "checkpoint/index.h"
#include "checkpoint/verify_folder.h"

namespace blockptq {
namespace {

constexpr std::string_view kJournal = ".deploy.jsonl";
constexpr std::string_view kLock = ".lock";
constexpr std::string_view kConfig = "config.json";

bool is_shard(const std::string& name) {
  return name.starts_with("model-") && name.find(".safetensors") != std::string::npos;
}

/// Files that stand for the weights of the source, or that would run code: never copied.
bool is_small_file(const std::filesystem::directory_entry& entry) {
  constexpr std::array<std::string_view, 12> kLeftOut{".safetensors", ".bin",  ".pt",   ".pth",
                                                      ".ckpt",        ".gguf", ".onnx", ".h5",
                                                      ".msgpack",     ".npz",  ".py",   ".pyc"};
  const std::string name = entry.path().filename().string();
  const bool ours = name == kConfig || name == kDescriptionName || name == kIndexName;
  return entry.is_regular_file() && !ours && !name.starts_with('.') &&
         std::ranges::find(kLeftOut, entry.path().extension().string()) == kLeftOut.end();
}

/// The folder, created if need be.
std::filesystem::path made(std::filesystem::path folder) {
  make_folder(folder);
  return folder;
}

Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

void remove_file(const std::filesystem::path& path) {
  std::error_code status;
  std::filesystem::remove(path, status);
  check(!status, "{}: cannot remove: {}", path.string(), status.message());
}

}  // namespace

void check_small_files(const std::filesystem::path& source) {
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    if (is_small_file(entry)) {
      refuse_lfs_pointer(read_file(entry.path()), entry.path().string());
    }
  }
  if (!std::filesystem::exists(source / "tokenizer.json")) {
    log(LogLevel::warning, "{}: no tokenizer.json: what is written from it will have none either",
        source.string());
  }
}

OutputFolder::OutputFolder(std::filesystem::path folder, Json run, bool restart)
    : folder_(made(std::move(folder))), run_(std::move(run)) {
  const bool journal = std::filesystem::exists(folder_ / kJournal);
  const bool described = std::filesystem::exists(folder_ / kDescriptionName);
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (entry.path().filename() != kLock) {
      files.push_back(entry.path());
    }
  }
  check(journal || described || files.empty(),
        "{}: expected a new or empty folder, or one that deploy left unfinished; found {}",
        folder_.string(), files.empty() ? "" : files.front().filename().string());
  lock_.emplace(folder_);
  if (restart) {
    for (const std::filesystem::path& file : files) {
      const std::string name = file.filename().string();
      if (is_shard(name) || name.find(".tmp-") != std::string::npos || name == kJournal ||
          name == kDescriptionName || name == kIndexName) {
        remove_file(file);
      }
    }
    start();
  } else if (journal) {
    read_journal();
  } else if (described) {
    check_same_run(folder_ / kDescriptionName,
                   read_json(folder_ / kDescriptionName).value("run", Json()), run_);
    complete_ = true;
    remove_file(folder_ / kLock);
  } else {
    start();
  }
}

void OutputFolder::start() {
  write_file_atomically(folder_ / kJournal, Json{{"run", run_}}.dump() + "\n");
}

void OutputFolder::read_journal() {
  const std::filesystem::path path = folder_ / kJournal;
  const std::string text = read_file(path);
  bool first = true;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const Json line = parse_json(text.substr(begin, end - begin), path.string());
    if (first) {
      check_same_run(path, line.value("run", Json()), run_);
    } else {
      const std::string shard = JsonView(line, path.string()).at("shard").string();
      const int64_t nbytes = JsonView(line, path.string()).at("bytes").integer();
      std::error_code status;
      const auto found = std::filesystem::file_size(folder_ / shard, status);
      check(!status && static_cast<int64_t>(found) == nbytes,
            "{}: expected {} bytes, as the journal says; use --restart", (folder_ / shard).string(),
            nbytes);
      finished_[shard] = line;
    }
    first = false;
    begin = end + 1;
  }
  check(!first, "{}: empty; use --restart", path.string());
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp-") != std::string::npos || (is_shard(name) && !finished_.contains(name))) {
      remove_file(entry.path());  // what a killed process was writing
    }
  }
}

const Json* OutputFolder::finished(const std::string& shard) const {
  const auto found = finished_.find(shard);
  return found == finished_.end() ? nullptr : &found->second;
}

void OutputFolder::record(const std::string& shard, const Json& result) {
  Json& line = finished_[shard] = result;
  line["shard"] = shard;
  line["bytes"] = std::filesystem::file_size(folder_ / shard);
  write_atomically(folder_ / kJournal, [&](const Append& append) {
    const auto add = [&](const Json& json) {
      const std::string text = json.dump() + "\n";
      append(text.data(), text.size());
    };
    add({{"run", run_}});
    for (const auto& [name, recorded] : finished_) {
      add(recorded);
    }
  });
}

void OutputFolder::complete_with(const std::filesystem::path& source, const Json& config,
                                 Json description, const Json& index) {
  for (const auto& entry : std::filesystem::directory_iterator(source)) {
    if (is_small_file(entry)) {
      write_file_atomically(folder_ / entry.path().filename(), read_file(entry.path()));
    }
  }
  write_file_atomically(folder_ / kConfig, config.dump(2) + "\n");
  description["run"] = run_;
  for (const auto& [name, recorded] : finished_) {
    description["shards"][name] = {{"bytes", recorded["bytes"]}, {"sha256", recorded["sha256"]}};
  }
  write_file_atomically(folder_ / kDescriptionName, description.dump(1) + "\n");
  write_file_atomically(folder_ / kIndexName, index.dump(1) + "\n");
  remove_file(folder_ / kJournal);
  remove_file(folder_ / kLock);
  complete_ = true;
}

}  // namespace blockptq
