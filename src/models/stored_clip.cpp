#include "models/stored_clip.h"

#include <ATen/ATen.h>

#include <cmath>
#include <string>

#include "base/error.h"

namespace blockptq {

std::optional<at::Tensor> stored_clip(const Checkpoint& checkpoint, const ModelTensor& weight) {
  const std::string module = weight.name.substr(0, weight.name.rfind('.'));
  const bool reads_latent = weight.role == "attention.kv_b_proj";
  const StoredTensor* stored = checkpoint.find(
      reads_latent ? module.substr(0, module.rfind('.')) + ".ckv_a_alpha" : module + ".alpha");
  if (stored == nullptr) {
    return std::nullopt;
  }
  check(stored->row_size() == 1, "{}: expected one element", stored->where());
  at::Tensor factor = at::empty({1}, at::kFloat);
  checkpoint.decode(*stored, kernels::FloatType::f32, factor.mutable_data_ptr());
  const auto value = factor.item<float>();
  check(std::isfinite(value) && value > 0, "{}: expected a finite factor > 0, found {}",
        stored->where(), value);
  return factor;
}

}  // namespace blockptq
