// Named tensors in one safetensors file, read and written as a whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "checkpoint/safetensors.h"

namespace blockptq {

using NamedTensors = std::map<std::string, at::Tensor, std::less<>>;

/// Writes F32, BF16, I8 or I64 tensors of any device, atomically.
void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});
/// Error for other types, and for everything that a safetensors file is refused for.
NamedTensors read_tensors(const std::filesystem::path& path);
/// One tensor of an open file.
at::Tensor read_tensor(const SafetensorsFile& file, const TensorInfo& info);

}  // namespace blockptq
