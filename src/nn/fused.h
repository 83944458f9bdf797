// When a fused kernel may stand in for composed tensor operations: on the CPU, and where no
// gradient is wanted.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq::nn {

inline bool can_fuse(const at::Tensor& x) {
  return x.is_cpu() && !x.requires_grad();
}

}  // namespace blockptq::nn
