// A checkpoint folder: config.json and the weights, by logical name, decoded row by row.
//
// Memory: a Checkpoint holds the names of its tensors; weights are mapped, and the pages that a
// decode touches are given back before it returns (pieces of about 16 MB), so that the resident set
// does not grow with what was read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "checkpoint/formats/format.h"
#include "checkpoint/safetensors.h"

namespace blockptq {

/// Movable; const methods are thread-safe. Pointers to its tensors are valid as long as it (or what
/// it was moved to) lives.
class Checkpoint {
 public:
  /// Opens the folder and reads config.json and the headers of all shards. Error for everything
  /// that docs/formats.md refuses; data is checked when it is decoded.
  static Checkpoint open(const std::filesystem::path& folder);

  const std::filesystem::path& path() const { return path_; }
  const Json& config() const { return *config_; }
  /// config.json together with its place, for typed access.
  JsonView config_view() const { return {*config_, config_path().string()}; }
  std::filesystem::path config_path() const { return path_ / "config.json"; }
  std::span<const std::unique_ptr<SafetensorsFile>> shards() const { return shards_; }

  /// The logical tensors in file order (shard, offset).
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// nullptr when there is no such logical tensor.
  const StoredTensor* find(std::string_view name) const;
  /// As `find`; Error when there is no such tensor.
  const StoredTensor& at(std::string_view name) const;

  /// Decodes rows [row_begin, row_end) of `tensor` to `out` [row_end - row_begin, row_size],
  /// row-major. Ranks 0 and 1 are one row. Error when the bytes are no valid numbers or the tensor
  /// is not of a floating-point kind.
  void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                   kernels::FloatType type, void* out) const;
  /// All rows.
  void decode(const StoredTensor& tensor, kernels::FloatType type, void* out) const {
    decode_rows(tensor, 0, tensor.rows(), type, out);
  }
  /// Decodes the given rows, in that order and with repeats, to `out` [rows.size(), row_size]: an
  /// embedding lookup.
  void gather_rows(const StoredTensor& tensor, std::span<const int64_t> rows,
                   kernels::FloatType type, void* out) const;
  /// Rows [row_begin, row_end) of an integer weight (`tensor.row_codes`) without leaving the grid:
  /// int8 codes [row_end - row_begin, row_size] and one fp32 scale per row. Error for codes beyond
  /// the tensor's bits and for scales that are not finite and > 0.
  void decode_codes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end, int8_t* codes,
                    float* scales) const;
  /// Copies the bytes [begin, end) of one raw tensor as they are in the file.
  void read_raw(const RawTensor& part, int64_t begin, int64_t end, void* out) const;

  /// Starts reading all parts of the tensor from disk; returns at once.
  void prefetch(const StoredTensor& tensor) const;
  /// As SafetensorsFile, of all parts.
  void keep(const StoredTensor& tensor) const;
  void drop(const StoredTensor& tensor) const;
  /// Drops the pages of all parts from the resident set. Decoding does so by itself.
  void release(const StoredTensor& tensor) const;

  /// Tensor bytes requested so far, repeats counted.
  int64_t bytes_read() const;
  /// Bytes of all tensors.
  int64_t total_bytes() const;

  /// Identifies the model: SHA-256, in hex, of config.json, the index, name, size and header of
  /// every shard, and 1 KiB of each of up to 32 tensors per shard (models of one shape have equal
  /// headers). Reads some MB at most; these do not count as bytes read.
  std::string fingerprint() const;

 private:
  Checkpoint() = default;

  std::filesystem::path path_;
  std::unique_ptr<const Json> config_;  // stable address for views
  std::vector<std::unique_ptr<SafetensorsFile>> shards_;
  std::vector<StoredTensor> tensors_;
  std::unordered_map<std::string_view, const StoredTensor*> by_name_;  // into tensors_
};

}  // namespace blockptq
