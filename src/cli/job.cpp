#include "cli/job.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "report/progress_bar.h"
#include "run/job_place.h"
#include "run/process_group.h"
#include "run/thread_group.h"

namespace blockptq::cli {
namespace {

/// Seconds of a variable of the environment, if it is set.
void set_seconds(const char* name, std::chrono::milliseconds& value) {
  if (const char* text = std::getenv(name)) {
    char* end = nullptr;
    const double seconds = std::strtod(text, &end);
    check(end != text && *end == '\0' && seconds >= 0.1 && seconds < 1e6,
          "{}: expected seconds, found '{}'", name, text);
    value = std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds));
  }
}

JoinOptions join_options() {
  JoinOptions options;
  set_seconds("BLOCKPTQ_JOIN_TIMEOUT", options.join_timeout);
  set_seconds("BLOCKPTQ_RANK_TIMEOUT", options.lost_after);
  return options;
}

class Quiet final : public Progress {
 public:
  void update(const ProgressState&) override {}
};

}  // namespace

Job::Job(const ComputeOptions& compute) : devices_(compute.resolve_devices()) {
  size_ = static_cast<int>(devices_.size());
  if (const auto place = job_place()) {
    check(devices_.size() == 1 || place->local_rank < static_cast<int>(devices_.size()),
          "--dev {}: expected a device for each rank of this host, found {} and local rank {}",
          compute.device, devices_.size(), place->local_rank);
    devices_ = {devices_[devices_.size() == 1 ? 0 : place->local_rank]};
    size_ = place->size;
  }
}

void Job::run(const std::function<void(Ranks& ranks, at::Device device)>& work) {
  if (const auto place = job_place()) {
    processes_ = join_job(*place, BLOCKPTQ_VERSION, join_options());
  }
  if (devices_.size() == 1) {
    work(processes(), devices_.front());
    return;
  }
  const int threads = std::max(1, at::get_num_threads() / size_);
  run_ranks(size_, [&](Ranks& ranks) {
    at::set_num_threads(threads);  // of this thread
    work(ranks, devices_[ranks.rank()]);
  });
}

std::unique_ptr<Progress> progress_of(const Ranks& ranks) {
  if (ranks.rank() == 0) {
    return std::make_unique<ProgressBar>(stderr);
  }
  return std::make_unique<Quiet>();
}

}  // namespace blockptq::cli
