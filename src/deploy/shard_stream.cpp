#include "deploy/shard_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"

namespace blockptq {
namespace {

constexpr size_t kBufferBytes = 512 << 10;  // still in the cache when it is hashed and written
constexpr size_t kMaxBuffers = 16;

/// Ends the writing thread of a stream that is given up.
struct Abandoned : std::exception {};

}  // namespace

ShardStream::ShardStream(std::filesystem::path path, std::vector<TensorSpec> specs,
                         Metadata metadata)
    : path_(std::move(path)), specs_(std::move(specs)), metadata_(std::move(metadata)) {
  thread_ = std::thread([this] { run(); });
}

ShardStream::~ShardStream() {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = !closed_;
  }
  changed_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
  }
}

void ShardStream::append(const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  while (size > 0) {
    if (filling_.empty()) {
      filling_.reserve(kBufferBytes);
    }
    const size_t count = std::min(size, kBufferBytes - filling_.size());
    filling_.insert(filling_.end(), bytes, bytes + count);
    bytes += count;
    size -= count;
    if (filling_.size() == kBufferBytes) {
      push();
    }
  }
}

void ShardStream::close() {
  if (!filling_.empty()) {
    push();
  }
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

std::string ShardStream::wait() {
  thread_.join();
  if (error_) {
    std::rethrow_exception(error_);
  }
  return hash_;
}

void ShardStream::push() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failed_ || queue_.size() < kMaxBuffers; });
  if (failed_) {
    std::rethrow_exception(error_);
  }
  queue_.push_back(std::exchange(filling_, {}));
  if (!free_.empty()) {
    filling_ = std::move(free_.back());
    free_.pop_back();
  }
  lock.unlock();
  changed_.notify_all();
}

void ShardStream::pop(Buffer& buffer) {
  std::unique_lock lock(mutex_);
  if (buffer.capacity() > 0) {
    buffer.clear();
    free_.push_back(std::move(buffer));
  }
  changed_.wait(lock, [&] { return abandoned_ || closed_ || !queue_.empty(); });
  if (abandoned_) {
    throw Abandoned();
  }
  BPTQ_ASSERT(!queue_.empty());
  buffer = std::move(queue_.front());
  queue_.pop_front();
  lock.unlock();
  changed_.notify_all();
}

void ShardStream::run() {
  Buffer buffer;
  size_t used = 0;
  const auto source = [&](size_t index, const Append& append) {
    auto left = static_cast<size_t>(tensor_nbytes(specs_[index]));
    while (left > 0) {
      if (used == buffer.size()) {
        pop(buffer);
        used = 0;
      }
      const size_t count = std::min(left, buffer.size() - used);
      append(buffer.data() + used, count);
      used += count;
      left -= count;
    }
  };
  try {
    Sha256 hash;
    write_safetensors(path_, specs_, metadata_, source,
                      [&](const void* data, size_t size) { hash.update(data, size); });
    hash_ = hash.hex();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    failed_ = true;
    changed_.notify_all();
  }
}

}  // namespace blockptq
