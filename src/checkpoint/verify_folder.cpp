#include "checkpoint/verify_folder.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "checkpoint/formats/format.h"

namespace blockptq {
namespace {

constexpr int64_t kPieceBytes = 8 << 20;

std::string file_hash(const SafetensorsFile& file) {
  Sha256 hash;
  for (int64_t begin = 0; begin < file.file_size(); begin += kPieceBytes) {
    const TensorBytes bytes = file.peek(begin, std::min(kPieceBytes, file.file_size() - begin));
    hash.update(bytes.data(), static_cast<size_t>(bytes.size()));
  }
  return hash.hex();
}

/// Number of shards compared.
int64_t check_hashes(const Checkpoint& checkpoint, const std::filesystem::path& path) {
  const Json description = parse_json(read_file(path), path.string());
  const JsonView shards = JsonView(description, path.string()).at("shards");
  for (const auto& shard : checkpoint.shards()) {
    const std::string name = shard->path().filename().string();
    const std::string& expected = shards.at(name).at("sha256").string();
    const std::string found = file_hash(*shard);
    check(found == expected, "{}: SHA-256 {}, expected {} ({})", shard->path().string(), found,
          expected, kDescriptionName);
  }
  check(shards.size() == checkpoint.shards().size(), "{}: {} shards, the folder has {}",
        shards.where(), shards.size(), checkpoint.shards().size());
  return static_cast<int64_t>(shards.size());
}

void read_tensor(const Checkpoint& checkpoint, const StoredTensor& tensor,
                 std::vector<float>& buffer) {
  if (tensor.bits == 0 && !float_type(tensor.stored_dtype())) {
    const RawTensor& part = tensor.parts.front();
    for (int64_t begin = 0; begin < part.info->nbytes; begin += kPieceBytes) {
      part.file->read(*part.info, begin, std::min(begin + kPieceBytes, part.info->nbytes));
    }
    return;
  }
  const int64_t cols = std::max<int64_t>(tensor.row_size(), 1);
  const int64_t rows = std::max<int64_t>(1, kPieceBytes / 4 / cols / 8 * 8);
  buffer.resize(static_cast<size_t>(std::min(rows, tensor.rows()) * cols));
  for (int64_t row = 0; row < tensor.rows(); row += rows) {
    checkpoint.decode_rows(tensor, row, std::min(row + rows, tensor.rows()),
                           kernels::FloatType::f32, buffer.data());
  }
}

}  // namespace

FolderCheck verify_folder(const Checkpoint& checkpoint) {
  FolderCheck result;
  const std::filesystem::path description = checkpoint.path() / kDescriptionName;
  if (std::filesystem::exists(description)) {
    result.hashed = check_hashes(checkpoint, description);
  }
  std::vector<float> buffer;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    read_tensor(checkpoint, tensor, buffer);
    ++result.tensors;
    result.bytes += tensor.nbytes();
  }
  return result;
}

}  // namespace blockptq
