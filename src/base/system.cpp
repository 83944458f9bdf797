#include "base/system.h"

#include <sys/resource.h>

#include <atomic>
#include <csignal>

namespace blockptq {
namespace {

std::atomic<int> stop_signal{0};

void note_signal(int signal) {
  stop_signal = signal;
}

}  // namespace

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void check_stop() {
  if (stop_signal != 0) {
    throw Stopped(stop_signal);
  }
}

}  // namespace blockptq
