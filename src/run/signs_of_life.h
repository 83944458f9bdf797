// Signs of life of the ranks of a job in its store: each rank leaves its own and looks at those of
// the others.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace c10d {
class Store;
}

namespace blockptq {

class SignsOfLife {
 public:
  /// Called once, on a thread of its own: `rank` has left no sign for too long, or (-1) some rank
  /// has left `why`.
  using OnLost = std::function<void(int rank, const std::string& why)>;

  /// A store that does not answer for `lost_after` counts as lost with rank 0.
  SignsOfLife(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
              std::chrono::milliseconds lost_after, OnLost on_lost);
  ~SignsOfLife();
  SignsOfLife(const SignsOfLife&) = delete;
  SignsOfLife& operator=(const SignsOfLife&) = delete;

  /// Leaves `reason` for all ranks, this one too, unless there is one already.
  void leave_reason(const std::string& reason);
  void stop();

 private:
  struct State;
  static void beat(const std::shared_ptr<State>& state);
  void watch(const OnLost& on_lost);

  std::shared_ptr<State> state_;
  std::thread watcher_;
};

}  // namespace blockptq
