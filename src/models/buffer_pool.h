// Host memory for weights that come and go at the pace of the stream.
//
// Fresh memory from the kernel is zeroed page by page, which costs about as much as decoding the
// weights into it; so the buffers of experts, all of one size, are used again. Thread-safe.
#pragma once

#include <cstddef>
#include <memory>

namespace blockptq {

class BufferPool {
 public:
  BufferPool();

  /// A 64-byte aligned buffer of at least `bytes`; it goes back when the last copy of the pointer
  /// is gone, also after the pool itself is gone.
  std::shared_ptr<std::byte> allocate(size_t bytes);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace blockptq
