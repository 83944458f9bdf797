// The ranks that a command runs on: processes that a launcher started, or the devices of --dev.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "base/ranks.h"
#include "cli/options.h"

namespace blockptq::cli {

class Job {
 public:
  /// Finds out what the job is. Error for a device that is not there, or more ranks on this host
  /// than devices in a list of them.
  explicit Job(const ComputeOptions& compute);

  /// Of the whole job.
  int size() const { return size_; }

  /// Joins the other processes, if any, and runs `work` for each device of this one, on threads of
  /// their own where there are several.
  void run(const std::function<void(Ranks& ranks, at::Device device)>& work);

  /// The processes of the job; valid after `run`.
  Ranks& processes() { return processes_ ? *processes_ : alone(); }
  /// Whether this process writes what the job has to say.
  bool speaks() { return processes().rank() == 0; }

 private:
  std::vector<at::Device> devices_;  ///< of this process
  int size_ = 1;
  std::unique_ptr<Ranks> processes_;
};

/// A progress bar on rank 0, nothing elsewhere.
std::unique_ptr<Progress> progress_of(const Ranks& ranks);

}  // namespace blockptq::cli
