// torch's floating-point types as the kernels name them.
#pragma once

#include <c10/core/ScalarType.h>

#include "base/error.h"
#include "kernels/types.h"

namespace blockptq {

inline kernels::FloatType float_type(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return kernels::FloatType::bf16;
    case at::kHalf:
      return kernels::FloatType::f16;
    default:
      BPTQ_ASSERT(type == at::kFloat);
      return kernels::FloatType::f32;
  }
}

/// The other way.
inline at::ScalarType torch_type(kernels::FloatType type) {
  switch (type) {
    case kernels::FloatType::bf16:
      return at::kBFloat16;
    case kernels::FloatType::f16:
      return at::kHalf;
    case kernels::FloatType::f32:
      break;
  }
  return at::kFloat;
}

}  // namespace blockptq
