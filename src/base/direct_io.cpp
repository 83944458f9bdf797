#include "base/direct_io.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr size_t kBlock = 4096;  ///< a multiple of what any disk wants
constexpr std::align_val_t kAlignment{kBlock};
constexpr size_t kWriteBytes = 2 << 20;

std::byte* allocate(size_t size) {
  return static_cast<std::byte*>(::operator new(size, kAlignment));
}

/// Whether `fd` was, and no longer is, past the page cache.
bool make_buffered(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_DIRECT) != 0 && ::fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

/// Whether a read or write that failed is worth another try.
bool again(int fd) {
  return errno == EINTR || (errno == EINVAL && make_buffered(fd));
}

}  // namespace

DirectReader::DirectReader(std::filesystem::path path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  check(fd_.get() >= 0, "{}: cannot open: {}", path_.string(), last_error());
  ::fcntl(fd_.get(), F_SETFL, O_DIRECT);
}

std::shared_ptr<const uint8_t> DirectReader::read(size_t offset, size_t size) const {
  const size_t begin = offset / kBlock * kBlock;
  const size_t wanted = offset + size - begin;
  const size_t capacity = (wanted + kBlock - 1) / kBlock * kBlock;
  const std::shared_ptr<std::byte> buffer(
      allocate(capacity), [](std::byte* bytes) { ::operator delete(bytes, kAlignment); });
  for (size_t done = 0; done < wanted;) {
    const ssize_t count =
        ::pread(fd_.get(), buffer.get() + done, capacity - done, static_cast<off_t>(begin + done));
    if (count < 0 && again(fd_.get())) {
      continue;
    }
    check(count > 0, "{}: cannot read {} bytes at offset {}: {}", path_.string(), size, offset,
          count == 0 ? "the file ends before" : last_error());
    done += static_cast<size_t>(count);
  }
  return {buffer, reinterpret_cast<const uint8_t*>(buffer.get() + (offset - begin))};
}

void DirectWriter::Free::operator()(std::byte* bytes) const {
  ::operator delete(bytes, kAlignment);
}

DirectWriter::~DirectWriter() {
  if (written_.valid()) {
    written_.wait();
  }
}

void DirectWriter::append(const void* data, size_t size) {
  const auto* bytes = static_cast<const std::byte*>(data);
  while (size > 0) {
    if (filling_.bytes == nullptr) {
      filling_.bytes.reset(allocate(kWriteBytes));
    }
    const size_t count = std::min(size, kWriteBytes - filling_.used);
    std::memcpy(filling_.bytes.get() + filling_.used, bytes, count);
    filling_.used += count;
    bytes += count;
    size -= count;
    if (filling_.used == kWriteBytes) {
      if (writing_.bytes == nullptr) {
        ::fcntl(fd_, F_SETFL, O_DIRECT);  // a smaller file is not worth it
      }
      wait();
      std::swap(filling_, writing_);
      filling_.used = 0;
      written_ = std::async(std::launch::async, [this] { write(writing_); });
    }
  }
}

void DirectWriter::finish() {
  wait();
  make_buffered(fd_);  // the last bytes are no whole blocks
  write(filling_);
  check(::fsync(fd_) == 0, "{}: cannot sync: {}", path_.string(), last_error());
}

void DirectWriter::wait() {
  if (written_.valid()) {
    written_.get();
  }
}

void DirectWriter::write(const Buffer& buffer) const {
  for (size_t done = 0; done < buffer.used;) {
    const ssize_t written = ::write(fd_, buffer.bytes.get() + done, buffer.used - done);
    if (written < 0 && again(fd_)) {
      continue;
    }
    check(written > 0, "{}: cannot write: {}", path_.string(), last_error());
    done += static_cast<size_t>(written);
  }
}

}  // namespace blockptq
