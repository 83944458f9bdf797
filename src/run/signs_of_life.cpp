#include "run/signs_of_life.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <utility>
#include <vector>

#include "base/error.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr const char* kReasonKey = "lost";
constexpr const char* kToldKey = "told";  // how many ranks know that the job is lost

std::string key_of(int rank) {
  return fmt::format("alive/{}", rank);
}

}  // namespace

/// Shared with the thread that talks to the store: a store whose host is gone may never answer, and
/// that thread is left behind then.
struct SignsOfLife::State {
  c10::intrusive_ptr<c10d::Store> store;
  int rank = 0;
  int size = 0;
  Milliseconds lost_after{};
  Milliseconds interval{};

  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  bool ended = false;  ///< the thread has
  Clock::time_point answered = Clock::now();
  int lost_rank = -1;
  std::string why;       ///< empty: all is well
  std::string to_leave;  ///< a reason for the others; empty: none

  void report(int lost, const std::string& text) {
    const std::lock_guard lock(mutex);
    if (why.empty()) {
      lost_rank = lost;
      why = text;
    }
  }
  /// How long `stop` waits for the thread: rank 0, which may keep the store, until the others have
  /// looked there.
  Milliseconds patience() const {
    const bool farewell = rank == 0 && !why.empty();
    return farewell ? 2 * interval + Milliseconds(2000) : interval;
  }
  void tell();
};

/// Says that this rank knows of the loss; returns on rank 0 when all do, or are lost.
void SignsOfLife::State::tell() {
  try {
    store->add(kToldKey, 1);
    const auto end = Clock::now() + patience();
    while (rank == 0 && store->add(kToldKey, 0) < size && Clock::now() < end) {
      std::this_thread::sleep_for(Milliseconds(20));
    }
  } catch (const std::exception&) {  // the store is gone: nobody looks there
  }
}

SignsOfLife::SignsOfLife(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                         Milliseconds lost_after, OnLost on_lost)
    : state_(std::make_shared<State>()) {
  state_->store = std::move(store);
  state_->rank = rank;
  state_->size = size;
  state_->lost_after = lost_after;
  state_->interval = std::clamp(lost_after / 20, Milliseconds(50), Milliseconds(2000));
  state_->store->set(key_of(rank), "0");
  std::thread([state = state_] { beat(state); }).detach();
  watcher_ = std::thread([this, on_lost = std::move(on_lost)] { watch(on_lost); });
}

SignsOfLife::~SignsOfLife() {
  stop();
}

void SignsOfLife::stop() {
  {
    std::unique_lock lock(state_->mutex);
    state_->stop = true;
    state_->changed.notify_all();
    state_->changed.wait_for(lock, state_->patience(), [&] { return state_->ended; });
  }
  if (watcher_.joinable()) {
    watcher_.join();
  }
}

void SignsOfLife::leave_reason(const std::string& reason) {
  const std::lock_guard lock(state_->mutex);
  state_->to_leave = reason;
  state_->changed.notify_all();
}

void SignsOfLife::beat(const std::shared_ptr<State>& state) {
  std::vector<std::pair<std::string, Clock::time_point>> seen(state->size,
                                                              {std::string(), Clock::now()});
  std::unique_lock lock(state->mutex);
  for (int64_t count = 1; !state->stop && state->why.empty(); ++count) {
    const std::string to_leave = state->to_leave;
    lock.unlock();
    try {
      state->store->set(key_of(state->rank), std::to_string(count));
      if (!to_leave.empty()) {
        state->store->compareSet(kReasonKey, std::string(), to_leave);
      }
      if (state->store->check({kReasonKey})) {
        state->report(-1, state->store->get_to_str(kReasonKey));
      }
      for (int rank = 0; rank < state->size; ++rank) {
        const bool there = state->store->check({key_of(rank)});
        const std::string sign = there ? state->store->get_to_str(key_of(rank)) : std::string();
        if (sign != seen[rank].first) {
          seen[rank] = {sign, Clock::now()};
        } else if (Clock::now() - seen[rank].second > state->lost_after) {
          state->report(rank,
                        fmt::format("no sign of life for {} s", state->lost_after.count() / 1000));
        }
      }
    } catch (const std::exception&) {
      state->report(0, "it kept the job's store, which does not answer");
    }
    lock.lock();
    state->answered = Clock::now();
    state->changed.notify_all();
    state->changed.wait_for(lock, state->interval,
                            [&] { return state->stop || state->to_leave != to_leave; });
  }
  if (!state->why.empty()) {
    lock.unlock();
    state->tell();
    lock.lock();
  }
  state->ended = true;
  state->changed.notify_all();
}

void SignsOfLife::watch(const OnLost& on_lost) {
  std::unique_lock lock(state_->mutex);
  while (!state_->stop) {
    if (state_->why.empty() && Clock::now() - state_->answered > state_->lost_after) {
      state_->lost_rank = 0;
      state_->why = "it kept the job's store, which does not answer";
    }
    if (!state_->why.empty()) {
      const int rank = state_->lost_rank;
      const std::string why = state_->why;
      lock.unlock();
      on_lost(rank, why);
      return;
    }
    state_->changed.wait_for(lock, state_->interval);
  }
}

}  // namespace blockptq
