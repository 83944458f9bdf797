// Writer of safetensors files: streaming, atomic, in the given order of tensors.
//
// The header is padded with spaces so that the data starts at a multiple of 8 bytes, as the
// safetensors library does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "base/file.h"
#include "checkpoint/safetensors.h"

namespace blockptq {

/// A tensor to write, without its bytes.
struct TensorSpec {
  std::string name;
  Dtype dtype = Dtype::f32;
  Shape shape;
};

/// A tensor to write; `data` (row-major) must hold all its bytes and outlive the call.
struct TensorToWrite {
  TensorSpec spec;
  const void* data = nullptr;
};

using Metadata = std::map<std::string, std::string>;

/// Bytes of the tensor; Error when that does not fit in 64 bits or a dimension is negative.
int64_t tensor_nbytes(const TensorSpec& spec);

/// Appends the bytes of tensor `index` in one or more calls of `append`.
using TensorSource = std::function<void(size_t index, const Append& append)>;

/// Writes a file that appears whole or not at all (base/file.h); `source` is asked for one tensor
/// after the other, so that no more than one need be in memory. Error when the file cannot be
/// written or two tensors share a name. It is a bug of the caller when `source` appends more or
/// less than the tensor has. `observe` sees every byte of the file, in order.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorSpec> tensors,
                       const Metadata& metadata, const TensorSource& source,
                       const Append& observe = {});
/// Bytes of the file of these tensors. Error as for writing it.
int64_t safetensors_file_size(std::span<const TensorSpec> tensors, const Metadata& metadata);
/// The same for tensors that are in memory.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const Metadata& metadata = {});

}  // namespace blockptq
