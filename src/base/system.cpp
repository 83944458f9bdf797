#include "base/system.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>

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

int64_t rss_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  file >> size >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

void configure_memory() {
  // Temporaries are reused from the heap: mapping them afresh costs a third of the time. Weights
  // are mapped, so that they leave no holes in it.
  constexpr int kMapFrom = 4 << 20;
  mallopt(M_MMAP_THRESHOLD, kMapFrom);
  mallopt(M_TRIM_THRESHOLD, 4 * kMapFrom);
  constexpr const char* kCachedShapes = "16";
  setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", kCachedShapes, /*overwrite=*/0);
  setenv("LRU_CACHE_CAPACITY", kCachedShapes, /*overwrite=*/0);  // ATen's, in front of oneDNN's
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
