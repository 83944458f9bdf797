#include "models/buffer_pool.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace blockptq {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMaxKeptBytes = size_t{256}
                                 << 20;  // a larger buffer is an attention's: one a block

}  // namespace

struct BufferPool::State {
  struct Buffer {
    std::byte* data = nullptr;
    size_t size = 0;
  };

  ~State() { std::free(spare.data); }

  Buffer take(size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      if (spare.data != nullptr && spare.size >= bytes && spare.size / 2 <= bytes) {
        return std::exchange(spare, {});
      }
      std::free(std::exchange(spare, {}).data);  // of another size: the stream has moved on
    }
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes));
    if (data == nullptr) {
      throw std::bad_alloc();
    }
    return {data, bytes};
  }

  void give_back(Buffer buffer) {
    const std::lock_guard lock(mutex);
    if (buffer.size <= kMaxKeptBytes) {
      std::swap(buffer, spare);
    }
    std::free(buffer.data);
  }

  std::mutex mutex;
  Buffer spare;  ///< dropped by the consumer of the stream, next for its prefetch
};

BufferPool::BufferPool() : state_(std::make_shared<State>()) {}

std::shared_ptr<std::byte> BufferPool::allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  const State::Buffer buffer = state_->take(rounded);
  return {buffer.data, [state = state_, buffer](std::byte*) { state->give_back(buffer); }};
}

}  // namespace blockptq
