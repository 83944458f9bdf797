// Reader of safetensors files: 8 bytes of little-endian header length N, N bytes of JSON, then the
// tensors' bytes (little-endian, row-major, C order).
//
// The header is untrusted: everything in it is checked before it is used (docs/formats.md).
// Stricter than the format asks in one point: names with control characters are refused, since
// names end up in messages and in terminals.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/direct_io.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/dtype.h"

namespace blockptq {

using Shape = std::vector<int64_t>;

/// One tensor as its file describes it.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
  int64_t offset = 0;  ///< of the first byte, from the start of the file
  int64_t nbytes = 0;
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< in file order; they fill the file without holes
  std::map<std::string, std::string> metadata;
  int64_t nbytes = 0;  ///< of the length field and the JSON: where the tensors start
};

/// Parses the start of a file of `file_size` bytes; `file_head` must hold the whole header (more is
/// ignored). Error naming `origin` and the tensor for everything that breaks the format.
SafetensorsHeader parse_safetensors_header(std::span<const uint8_t> file_head, int64_t file_size,
                                           std::string_view origin);

/// Bytes of a tensor that stay in memory as long as the object lives, and leave the resident set
/// with it.
class TensorBytes {
 public:
  /// Bytes [offset, offset + size) of `file`, aligned to `alignment` (copied when the file does not
  /// align them). Error when the disk cannot deliver.
  TensorBytes(const MappedFile& file, int64_t offset, int64_t size, int64_t alignment);
  /// The same, read past the page cache.
  TensorBytes(const DirectReader& file, int64_t offset, int64_t size, int64_t alignment);
  /// Bytes [offset, offset + size) of `kept`.
  TensorBytes(std::shared_ptr<const std::vector<uint64_t>> kept, int64_t offset, int64_t size);
  ~TensorBytes();
  TensorBytes(const TensorBytes&) = delete;
  TensorBytes& operator=(const TensorBytes&) = delete;

  const uint8_t* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  void align(int64_t alignment);

  const MappedFile* file_ = nullptr;
  int64_t offset_;
  int64_t size_;
  const uint8_t* data_;
  std::shared_ptr<const void> owner_;  ///< of bytes outside the map
};

/// An open file. Pointers to its TensorInfo are valid as long as it lives. Reading is thread-safe.
class SafetensorsFile {
 public:
  enum class Reading {
    mapped,
    direct,  ///< from the disk itself, past the page cache: to verify what was written
  };

  /// Maps the file and parses its header; tensors are read on demand. Error when the file is no
  /// valid safetensors file (a git-LFS pointer is named as such).
  explicit SafetensorsFile(const std::filesystem::path& path, Reading reading = Reading::mapped);
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return file_.path(); }
  int64_t file_size() const { return static_cast<int64_t>(file_.bytes().size()); }
  const SafetensorsHeader& header() const { return header_; }
  /// Any bytes of the file, unaligned; they do not count as read.
  TensorBytes peek(int64_t offset, int64_t size) const { return {file_, offset, size, 1}; }
  /// Length field and JSON as they are in the file.
  TensorBytes header_bytes() const { return peek(0, header_.nbytes); }

  /// nullptr when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// As `find`; Error when there is no such tensor.
  const TensorInfo& at(std::string_view name) const;

  /// Bytes [begin, end) of a tensor of this file, aligned to its element size when `begin` is a
  /// multiple of it.
  TensorBytes read(const TensorInfo& tensor, int64_t begin, int64_t end) const;
  /// All bytes of the tensor.
  TensorBytes read(const TensorInfo& tensor) const { return read(tensor, 0, tensor.nbytes); }
  /// The tensor will be read twice: the first time it is read whole, and from then on out of memory
  /// until it is dropped.
  void keep(const TensorInfo& tensor) const;
  void drop(const TensorInfo& tensor) const;
  /// Starts reading the tensor from disk; returns at once.
  void prefetch(const TensorInfo& tensor) const;
  /// Drops the tensor's pages from the resident set.
  void release(const TensorInfo& tensor) const;

  /// What identifies the file, without reading all of it: name, size, header, and 1 KiB of each of
  /// up to 32 tensors. These do not count as read.
  void add_to(Sha256& hash) const;

  /// Tensor bytes read so far, repeats counted.
  int64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }

 private:
  using Kept = std::shared_ptr<const std::vector<uint64_t>>;
  /// The bytes of a tensor that is kept; null for others.
  Kept kept(const TensorInfo& tensor) const;

  MappedFile file_;
  std::optional<DirectReader> direct_;
  SafetensorsHeader header_;
  std::unordered_map<std::string_view, const TensorInfo*> by_name_;
  mutable std::atomic<int64_t> bytes_read_{0};
  mutable std::mutex mutex_;
  mutable std::unordered_map<const TensorInfo*, Kept> kept_;  ///< null: not read so far
};

/// A tensor and the open file it lies in; both outlive it.
struct RawTensor {
  const SafetensorsFile* file = nullptr;
  const TensorInfo* info = nullptr;

  /// "path: tensor name", for messages.
  std::string where() const;
};

/// "[2, 3]".
std::string shape_text(const Shape& shape);

}  // namespace blockptq
