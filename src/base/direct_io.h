// Reading and writing past the page cache (O_DIRECT), where the file system lets us: for large
// files that are passed through once, copying into the cache costs more time than the disk. Where
// it does not, the same calls go through the cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <utility>

#include "base/descriptor.h"

namespace blockptq {

/// Reads a file; safe to use from many threads.
class DirectReader {
 public:
  /// Error when the file cannot be opened.
  explicit DirectReader(std::filesystem::path path);

  /// Bytes [offset, offset + size), in memory as aligned as `offset` is (to 4096 at most). Error
  /// naming the file when the disk cannot deliver.
  std::shared_ptr<const uint8_t> read(size_t offset, size_t size) const;

 private:
  std::filesystem::path path_;
  Descriptor fd_;
};

/// Writes a file from its start, a few MB at a time, while the next ones come in.
class DirectWriter {
 public:
  /// `path`, for messages, of the file that is open for writing as `fd`.
  DirectWriter(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  ~DirectWriter();
  DirectWriter(const DirectWriter&) = delete;
  DirectWriter& operator=(const DirectWriter&) = delete;

  /// The next bytes, copied. Error when earlier ones could not be written.
  void append(const void* data, size_t size);
  /// Returns when everything is on the disk.
  void finish();

 private:
  struct Free {
    void operator()(std::byte* bytes) const;
  };
  struct Buffer {
    std::unique_ptr<std::byte, Free> bytes;
    size_t used = 0;
  };

  /// Waits for what is being written.
  void wait();
  void write(const Buffer& buffer) const;

  int fd_;
  std::filesystem::path path_;
  Buffer filling_;
  Buffer writing_;
  std::future<void> written_;
};

}  // namespace blockptq
