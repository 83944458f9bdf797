// Finished units of a run, one JSON object a line (journal.jsonl of the run folder).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace blockptq {

class Journal {
 public:
  /// Reads what an earlier run wrote; a last line that was cut off is dropped.
  explicit Journal(std::filesystem::path path);

  /// Appends `entry` and waits until it is on disk.
  void append(const Json& entry);
  const std::vector<Json>& entries() const { return entries_; }
  /// The entry of that block and unit; nullptr when there is none.
  const Json* find(int64_t block, const std::string& unit) const;

 private:
  std::filesystem::path path_;
  std::vector<Json> entries_;
};

}  // namespace blockptq
