#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"
#include "base/size.h"
#include "checkpoint/index.h"

namespace blockptq {
namespace {

/// Bytes of a weight that are in memory at once while it is decoded.
constexpr int64_t kPieceBytes = 16 << 20;

std::unique_ptr<const Json> read_config(const std::filesystem::path& path) {
  std::error_code status;
  check(std::filesystem::exists(path, status), "{}: config.json is missing",
        path.parent_path().string());
  auto config = std::make_unique<const Json>(parse_json(read_file(path), path.string()));
  JsonView(*config, path.string()).expect_object();
  return config;
}

/// The end of the piece that begins with `row`: about kPieceBytes, on a border of scale blocks and
/// of the rows that share a word of packed zero points.
int64_t piece_end(const StoredTensor& tensor, int64_t row, int64_t row_end) {
  const int64_t unit = std::max<int64_t>(tensor.block_rows, 8);
  const int64_t row_bytes = std::max<int64_t>(1, tensor.parts[0].info->nbytes / tensor.rows());
  const int64_t units = std::max<int64_t>(1, kPieceBytes / row_bytes / unit);
  return std::min(row_end, (row / unit + units) * unit);
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& folder) {
  Checkpoint checkpoint;
  checkpoint.path_ = folder;
  checkpoint.shards_ = open_shards(folder);
  checkpoint.config_ = read_config(checkpoint.config_path());
  checkpoint.tensors_ =
      recognise(checkpoint.shards_, checkpoint.config_view().find("quantization_config"));
  checkpoint.by_name_.reserve(checkpoint.tensors_.size());
  for (const StoredTensor& tensor : checkpoint.tensors_) {
    checkpoint.by_name_.emplace(tensor.name, &tensor);
  }
  return checkpoint;
}

const StoredTensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const StoredTensor& Checkpoint::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  check(tensor != nullptr, "{}: tensor {} is missing", path_.string(), name);
  return *tensor;
}

void Checkpoint::decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                             kernels::FloatType type, void* out) const {
  BPTQ_ASSERT(row_begin >= 0 && row_begin <= row_end && row_end <= tensor.rows());
  const int64_t out_row_bytes = tensor.row_size() * kernels::element_size(type);
  auto* piece = static_cast<uint8_t*>(out);
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t next = piece_end(tensor, row, row_end);
    tensor.format->decode_rows(tensor, row, next, type, piece);
    piece += (next - row) * out_row_bytes;
    row = next;
  }
}

void Checkpoint::decode_codes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                              int8_t* codes, float* scales) const {
  BPTQ_ASSERT(tensor.row_codes && row_begin >= 0 && row_begin <= row_end &&
              row_end <= tensor.rows());
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t next = piece_end(tensor, row, row_end);
    tensor.format->decode_codes(tensor, row, next, codes, scales);
    codes += (next - row) * tensor.row_size();
    scales += next - row;
    row = next;
  }
}

void Checkpoint::gather_rows(const StoredTensor& tensor, std::span<const int64_t> rows,
                             kernels::FloatType type, void* out) const {
  const int64_t out_row_bytes = tensor.row_size() * kernels::element_size(type);
  auto* out_row = static_cast<uint8_t*>(out);
  for (const int64_t row : rows) {
    if (row < 0 || row >= tensor.rows()) {
      fail("{}: expected a row below {}, found {}", tensor.where(), tensor.rows(), row);
    }
    tensor.format->decode_rows(tensor, row, row + 1, type, out_row);
    out_row += out_row_bytes;
  }
}

void Checkpoint::read_raw(const RawTensor& part, int64_t begin, int64_t end, void* out) const {
  auto* to = static_cast<uint8_t*>(out);
  for (int64_t at = begin; at < end; at += kPieceBytes) {
    const TensorBytes bytes = part.file->read(*part.info, at, std::min(end, at + kPieceBytes));
    std::memcpy(to, bytes.data(), static_cast<size_t>(bytes.size()));
    to += bytes.size();
  }
}

void Checkpoint::prefetch(const StoredTensor& tensor) const {
  for (const RawTensor& part : tensor.parts) {
    part.file->prefetch(*part.info);
  }
}

void Checkpoint::keep(const StoredTensor& tensor) const {
  for (const RawTensor& part : tensor.parts) {
    part.file->keep(*part.info);
  }
}

void Checkpoint::drop(const StoredTensor& tensor) const {
  for (const RawTensor& part : tensor.parts) {
    part.file->drop(*part.info);
  }
}

void Checkpoint::release(const StoredTensor& tensor) const {
  for (const RawTensor& part : tensor.parts) {
    part.file->release(*part.info);
  }
}

int64_t Checkpoint::bytes_read() const {
  return std::accumulate(shards_.begin(), shards_.end(), int64_t{0},
                         [](int64_t sum, const auto& shard) { return sum + shard->bytes_read(); });
}

int64_t Checkpoint::total_bytes() const {
  return std::accumulate(shards_.begin(), shards_.end(), int64_t{0},
                         [](int64_t sum, const auto& shard) {
                           return sum + shard->file_size() - shard->header().nbytes;
                         });
}

std::string Checkpoint::fingerprint() const {
  Sha256 hash;
  hash.add_field(read_file(config_path()));
  const std::filesystem::path index = path_ / kIndexName;
  std::error_code status;
  hash.add_field(std::filesystem::exists(index, status) ? read_file(index) : std::string());
  for (const auto& shard : shards_) {
    shard->add_to(hash);
  }
  return hash.hex();
}

}  // namespace blockptq
