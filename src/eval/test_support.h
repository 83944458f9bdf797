// What tests of the forward pass share.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "base/progress.h"
#include "checkpoint/dtype.h"
#include "checkpoint/safetensors.h"

namespace blockptq {

class NoProgress final : public Progress {
 public:
  void update(const ProgressState& /*state*/) override {}
};

/// F32, BF16, I32 or I8.
inline at::ScalarType torch_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::i32:
      return at::kInt;
    case Dtype::i8:
      return at::kChar;
    case Dtype::bf16:
      return at::kBFloat16;
    default:
      check(dtype == Dtype::f32, "a test asked for a tensor of {}", dtype_name(dtype));
      return at::kFloat;
  }
}

/// The tensor of a safetensors file whose name is, or else starts with, `name`.
inline at::Tensor load_tensor(const std::filesystem::path& path, const std::string& name) {
  const SafetensorsFile file(path);
  const TensorInfo* info = file.find(name);
  for (const TensorInfo& candidate : file.header().tensors) {
    info = info == nullptr && candidate.name.starts_with(name) ? &candidate : info;
  }
  check(info != nullptr, "{}: no tensor '{}'", path.string(), name);
  at::Tensor tensor = at::empty(info->shape, torch_type(info->dtype));
  const TensorBytes bytes = file.read(*info);
  std::copy_n(bytes.data(), bytes.size(), static_cast<uint8_t*>(tensor.mutable_data_ptr()));
  return tensor;
}

inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

inline double mean_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().mean().item<double>();
}

/// How many of the numbers in `wanted` are not in `found`.
inline int64_t missing_from(const at::Tensor& wanted, const at::Tensor& found) {
  std::set<int64_t> present;
  for (int64_t i = 0; i < found.numel(); ++i) {
    present.insert(found[i].item<int64_t>());
  }
  int64_t missing = 0;
  for (int64_t i = 0; i < wanted.numel(); ++i) {
    missing += present.contains(wanted[i].item<int64_t>()) ? 0 : 1;
  }
  return missing;
}

}  // namespace blockptq
