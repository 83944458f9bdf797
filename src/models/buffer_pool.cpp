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
constexpr size_t kMaxFree = 1;  // dropped by the consumer, next for the prefetch
constexpr size_t kMaxKeptBytes = size_t{256}
                                 << 20;  // a larger buffer is an attention's: one a block

}  // namespace

struct BufferPool::State {
  struct Buffer {
    std::byte* data;
    size_t size;
  };

  ~State() {
    for (const Buffer& buffer : free_buffers) {
      std::free(buffer.data);
    }
  }

  Buffer take(size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      const auto fit = std::find_if(free_buffers.begin(), free_buffers.end(), [&](const Buffer& b) {
        return b.size >= bytes && b.size / 2 <= bytes;
      });
      if (fit != free_buffers.end()) {
        const Buffer buffer = *fit;
        free_buffers.erase(fit);
        return buffer;
      }
    }
    auto* data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, bytes));
    if (data == nullptr) {
      throw std::bad_alloc();
    }
    return {data, bytes};
  }

  void give_back(Buffer buffer) {
    const std::lock_guard lock(mutex);
    if (buffer.size > kMaxKeptBytes) {
      std::free(buffer.data);
      return;
    }
    free_buffers.push_back(buffer);
    if (free_buffers.size() > kMaxFree) {
      std::free(free_buffers.front().data);
      free_buffers.erase(free_buffers.begin());
    }
  }

  std::mutex mutex;
  std::vector<Buffer> free_buffers;  // oldest first
};

BufferPool::BufferPool() : state_(std::make_shared<State>()) {}

std::shared_ptr<std::byte> BufferPool::allocate(size_t bytes) {
  const size_t rounded = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  const State::Buffer buffer = state_->take(rounded);
  return {buffer.data, [state = state_, buffer](std::byte*) { state->give_back(buffer); }};
}

}  // namespace blockptq
