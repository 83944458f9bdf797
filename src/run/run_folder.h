// A folder that holds the work of one run, so that the run can be cut and continued.
//
//   run.json                  what is run: model, text, settings; a run with other ones is refused
//   states_NNN.safetensors    what enters block NNN (states [C, L, D] by name), the newest only
//   unit_NNN_X.safetensors    what was learned of unit X of block NNN, while the block is in work,
//                             with the unit's line of the journal
//   result.json               what the command had to say at the end of the run; gone while it goes
//   on .lock                     held while a process works there
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/ranks.h"
#include "run/tensor_file.h"

namespace blockptq {

constexpr const char* kResultName = "result.json";

/// Error when the run described in the file `path` by `found` lacks a member of `wanted` or has it
/// otherwise; the first such member is named.
void check_same_run(const std::filesystem::path& path, const Json& found, const Json& wanted);

/// Held while a process works in a folder.
class FolderLock {
 public:
  /// Error when another process holds it, or the folder is not writable.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

class RunFolder {
 public:
  /// Creates or continues the run in `folder`. Error when another process works there, or when the
  /// folder holds a run whose description differs (the first differing key is named); `restart`
  /// throws such a run away instead, with everything that runs leave here.
  ///
  /// Of several `ranks`, rank 0 does that and holds the lock; all use the folder then. Error when
  /// it is not one folder for all of them.
  RunFolder(const std::filesystem::path& folder, const Json& description, bool restart,
            Ranks& ranks = alone());

  /// The states that enter `block`, if they are here.
  std::optional<NamedTensors> load_states(int64_t block) const;
  /// The last block at or before `end` whose entering states are here.
  std::optional<int64_t> newest_states(int64_t end) const;
  /// Writes them, atomically, and removes older ones.
  void save_states(int64_t block, const NamedTensors& states) const;

  const std::filesystem::path& path() const { return folder_; }
  std::filesystem::path unit_path(int64_t block, const std::string& unit) const;
  /// Writes the file of a finished unit, atomically: what was learned, and the journal's entry,
  /// which names block and unit.
  void keep_unit(const Json& entry, const NamedTensors& learned) const;
  /// The journal's entry of a finished unit, whichever rank has made it.
  Json unit_entry(int64_t block, const std::string& unit) const;
  /// Removes the unit files of `block` (its results are in one file by now).
  void remove_units(int64_t block) const;

 private:
  void open(const Json& description, bool restart);
  std::filesystem::path states_path(int64_t block) const;

  std::filesystem::path folder_;
  std::optional<FolderLock> lock_;
};

}  // namespace blockptq
