// The process: its memory, and the wish of the user to stop it.
#pragma once

#include <cstdint>
#include <exception>

namespace blockptq {

/// Largest resident set of this process so far, in bytes.
int64_t peak_rss_bytes();
/// The resident set of this process now.
int64_t rss_bytes();

/// Makes memory follow what is in use. glibc's allocator learns to keep large blocks, and the heap
/// then grows with fragmentation as blocks pass; oneDNN keeps the compiled code and scratch of a
/// thousand matrix shapes, and every expert brings new ones. Call first in main; the environment
/// has the last word on the caches.
void configure_memory();

/// Thrown by check_stop once a signal asked the process to stop.
class Stopped : public std::exception {
 public:
  explicit Stopped(int signal) : signal_(signal) {}
  const char* what() const noexcept override { return "stopped by a signal"; }
  int signal() const { return signal_; }

 private:
  int signal_;
};

/// From now on SIGINT and SIGTERM are noted, and check_stop throws. A second signal kills at once.
void catch_stop_signals();

/// A unit boundary: throws Stopped when a signal has come.
void check_stop();

}  // namespace blockptq
