// Progress at the terminal: one line with a bar, blocks, tokens per second and time left, redrawn a
// few times a second.
#pragma once

#include <chrono>
#include <cstdio>

#include "base/progress.h"

namespace blockptq {

/// Draws on `stream` where it is a terminal, and nothing elsewhere. The line is wiped when the
/// object goes.
class ProgressBar final : public Progress {
 public:
  explicit ProgressBar(std::FILE* stream);
  ~ProgressBar() override;
  void update(const ProgressState& state) override;

 private:
  using Clock = std::chrono::steady_clock;

  std::FILE* stream_;
  bool enabled_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_draw_;
};

}  // namespace blockptq
