// How far a long job is. The library reports; the program draws.
#pragma once

#include <cstdint>
#include <string>

namespace blockptq {

struct ProgressState {
  int64_t block = 0;   ///< in work, from 0
  int64_t blocks = 0;  ///< of this run
  int64_t tokens = 0;  ///< that pass through every block; 0 in a job without tokens
  double done = 0;     ///< share of the whole run, 0 to 1
  std::string detail;  ///< e.g. "expert 17/256"
};

class Progress {
 public:
  Progress() = default;
  virtual ~Progress() = default;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// Called often (once an expert); cheap.
  virtual void update(const ProgressState& state) = 0;
};

}  // namespace blockptq
