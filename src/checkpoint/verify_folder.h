// A whole checkpoint folder, read to the last byte.
#pragma once

#include <cstdint>

#include "checkpoint/checkpoint.h"

namespace blockptq {

/// What describes a folder that this program wrote: roles, schemes, errors, checksums.
inline constexpr std::string_view kDescriptionName = "blockptq.json";

struct FolderCheck {
  int64_t tensors = 0;
  int64_t bytes = 0;   ///< of tensors
  int64_t hashed = 0;  ///< shards whose SHA-256 was compared; 0 without blockptq.json
};

/// Compares every shard with its SHA-256 in blockptq.json, where there is one, and decodes every
/// tensor. Error naming the shard or tensor: a checksum that differs, a shard that is not described
/// or not there, bytes that are no valid numbers, a disk that cannot deliver.
FolderCheck verify_folder(const Checkpoint& checkpoint);

}  // namespace blockptq
