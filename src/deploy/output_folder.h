// The folder that a deployed checkpoint is written to, and what is finished there.
//
//   .deploy.jsonl   while unfinished: the run on the first line, then a line per finished shard
//   blockptq.json   when complete: the run, every tensor, the SHA-256 of every shard
//
// The index is written last: a folder without one does not pass for a checkpoint.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "run/run_folder.h"

namespace blockptq {

/// What will be copied from `source`: Error for a file that is a git-LFS pointer, a warning when
/// there is no tokenizer.
void check_small_files(const std::filesystem::path& source);

class OutputFolder {
 public:
  /// Creates, continues or (`restart`) empties the folder. `run` says what is written from what;
  /// Error when the folder holds another run (the first differing key is named), files that are not
  /// ours, or cannot be written.
  OutputFolder(std::filesystem::path folder, Json run, bool restart);

  const std::filesystem::path& path() const { return folder_; }
  /// Whether the checkpoint of this run is here, whole.
  bool complete() const { return complete_; }
  /// What was recorded of a shard, if it is finished.
  const Json* finished(const std::string& shard) const;
  /// Records a shard that is on disk.
  void record(const std::string& shard, const Json& result);
  /// Copies the small files of `source` (tokenizer, templates, generation settings), then writes
  /// config.json, blockptq.json and the index, in this order, and drops the journal.
  void complete_with(const std::filesystem::path& source, const Json& config, Json description,
                     const Json& index);

 private:
  void read_journal();
  void start();

  std::filesystem::path folder_;
  Json run_;
  std::optional<FolderLock> lock_;
  std::map<std::string, Json> finished_;
  bool complete_ = false;
};

}  // namespace blockptq
