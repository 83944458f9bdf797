// The bytes of one shard on their way to the disk: written and hashed on a thread of their own
// while the next ones are computed.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/safetensors_writer.h"

namespace blockptq {

class ShardStream {
 public:
  /// Starts writing the file of these tensors (atomically: it appears with `wait`).
  ShardStream(std::filesystem::path path, std::vector<TensorSpec> specs, Metadata metadata);
  /// Without `close`, gives the file up.
  ~ShardStream();
  ShardStream(const ShardStream&) = delete;
  ShardStream& operator=(const ShardStream&) = delete;

  /// The next bytes, copied; waits while much is on its way. Throws what writing has thrown.
  void append(const void* data, size_t size);
  /// After the last byte.
  void close();
  /// Waits until the file is on disk under its name; the SHA-256 of all its bytes, in hex. Throws
  /// what writing has thrown. After `close`; may be called on another thread.
  std::string wait();

 private:
  using Buffer = std::vector<std::byte>;

  void run();
  void push();
  /// Gives `buffer` back to be filled again and takes the next one of the queue.
  void pop(Buffer& buffer);

  std::filesystem::path path_;
  std::vector<TensorSpec> specs_;
  Metadata metadata_;
  Buffer filling_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Buffer> queue_;
  std::vector<Buffer> free_;  ///< memory that has been written to before needs no new pages
  bool closed_ = false;
  bool abandoned_ = false;
  bool failed_ = false;
  std::exception_ptr error_;
  std::string hash_;
  std::thread thread_;
};

}  // namespace blockptq
