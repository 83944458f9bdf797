#include "run/tensor_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/safetensors_writer.h"

namespace blockptq {
namespace {

constexpr std::array kTypes{std::pair{Dtype::f32, at::kFloat},
                            std::pair{Dtype::bf16, at::kBFloat16}, std::pair{Dtype::i8, at::kChar},
                            std::pair{Dtype::i64, at::kLong}};

Dtype stored_type(at::ScalarType type) {
  const auto* found = std::find_if(kTypes.begin(), kTypes.end(),
                                   [&](const auto& pair) { return pair.second == type; });
  BPTQ_ASSERT(found != kTypes.end());
  return found->first;
}

}  // namespace

void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> host;
  std::vector<TensorToWrite> rows;
  for (const auto& [name, value] : tensors) {
    host.push_back(value.cpu().contiguous());
    rows.push_back({{name, stored_type(value.scalar_type()), value.sizes().vec()},
                    host.back().const_data_ptr()});
  }
  write_safetensors(path, rows, metadata);
}

at::Tensor read_tensor(const SafetensorsFile& file, const TensorInfo& info) {
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(),
                                  [&](const auto& pair) { return pair.first == info.dtype; });
  check(type != kTypes.end(), "{}: {}: expected F32, BF16, I8 or I64, found {}",
        file.path().string(), info.name, dtype_name(info.dtype));
  at::Tensor tensor = at::empty(info.shape, type->second);
  const TensorBytes bytes = file.read(info);
  std::copy_n(bytes.data(), bytes.size(), static_cast<uint8_t*>(tensor.mutable_data_ptr()));
  file.release(info);
  return tensor;
}

NamedTensors read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const TensorInfo& info : file.header().tensors) {
    tensors[info.name] = read_tensor(file, info);
  }
  return tensors;
}

}  // namespace blockptq
