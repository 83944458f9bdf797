#include "deploy/ordered_work.h"

#include <ATen/Parallel.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

namespace blockptq {
namespace {

/// No team of OpenMP's for what ATen does on this thread. (at::set_num_threads would bind all
/// threads that are still to come.)
void compute_on_one_core() {
  at::internal::lazy_init_num_threads();  // or it would undo this later
#ifdef _OPENMP
  omp_set_num_threads(1);
#endif
}

/// Which items are begun, produced and taken.
class Order {
 public:
  Order(int64_t count, int64_t slots)
      : count_(count), slots_(slots), produced_(static_cast<size_t>(slots)) {}

  /// The next item whose slot is free; `count` when there is nothing left to begin.
  int64_t begin() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return error_ || begun_ == count_ || begun_ - taken_ < slots_; });
    return error_ || begun_ == count_ ? count_ : begun_++;
  }
  void produced(int64_t item) {
    const std::lock_guard lock(mutex_);
    produced_[static_cast<size_t>(item % slots_)] = true;
    changed_.notify_all();
  }
  void wait_for(int64_t item) {
    const auto slot = static_cast<size_t>(item % slots_);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return error_ || produced_[slot]; });
    if (error_) {
      std::rethrow_exception(error_);
    }
    produced_[slot] = false;
  }
  void taken() {
    const std::lock_guard lock(mutex_);
    ++taken_;
    changed_.notify_all();
  }
  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    error_ = error_ ? error_ : std::move(error);
    changed_.notify_all();
  }

 private:
  int64_t count_;
  int64_t slots_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> produced_;  ///< by slot
  int64_t begun_ = 0;
  int64_t taken_ = 0;
  std::exception_ptr error_;
};

}  // namespace

void produce_in_order(int64_t count, int threads, int64_t slots,
                      const std::function<void(int64_t item, int64_t slot)>& produce,
                      const std::function<void(int64_t item, int64_t slot)>& take) {
  BPTQ_ASSERT(threads > 0 && slots > 0);
  Order order(count, slots);
  const auto work = [&] {
    compute_on_one_core();
    try {
      for (int64_t item = order.begin(); item < count; item = order.begin()) {
        produce(item, item % slots);
        order.produced(item);
      }
    } catch (...) {
      order.fail(std::current_exception());
    }
  };
  std::vector<std::jthread> workers;  // joined on every way out
  for (int64_t i = 0; i < std::min<int64_t>(threads, count); ++i) {
    workers.emplace_back(work);
  }
  try {
    for (int64_t item = 0; item < count; ++item) {
      order.wait_for(item);
      take(item, item % slots);
      order.taken();
    }
  } catch (...) {
    order.fail(std::current_exception());
    throw;
  }
}

}  // namespace blockptq
