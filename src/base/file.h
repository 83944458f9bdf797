// Files: read-only maps whose pages are given back, whole small files, and output that appears
// atomically.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace blockptq {

/// A file mapped read-only. The bytes are valid as long as the object lives. Movable; safe to read
/// from many threads.
class MappedFile {
 public:
  /// Maps `path`. Error when it cannot be opened or is no regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

  /// Asks the kernel to start reading [offset, offset + size) from disk; returns at once.
  void prefetch(size_t offset, size_t size) const;
  /// Reads [offset, offset + size) into the map now. Error naming the file when the disk cannot
  /// deliver (an access to such a page would be a SIGBUS).
  void populate(size_t offset, size_t size) const;
  /// Gives the pages of [offset, offset + size) back, so that they no longer count in the resident
  /// set.
  void release(size_t offset, size_t size) const;

 private:
  std::filesystem::path path_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole of a small file; Error when it cannot be read or is larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, int64_t max_bytes = int64_t{1} << 30);

/// Writes a file that appears whole or not at all: temporary name in the same folder, fsync,
/// rename, fsync of the folder. `write` is handed an append function. Error naming the file when
/// space or permission is lacking; the temporary file is then removed.
using Append = std::function<void(const void* data, size_t size)>;
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const Append&)>& write);
void write_file_atomically(const std::filesystem::path& path, std::string_view content);
/// Removes the temporary files that killed processes left in `folder`; nobody may write there now.
void remove_unfinished(const std::filesystem::path& folder);

/// Creates `path` and its parents; Error when that fails or a file is in the way.
void make_folder(const std::filesystem::path& path);

/// Bytes that can still be written where `folder` is (or will be).
int64_t free_bytes(std::filesystem::path folder);

/// Error when `content` of the file `origin` is a git-LFS pointer instead of the file itself.
void refuse_lfs_pointer(std::string_view content, std::string_view origin);

}  // namespace blockptq
