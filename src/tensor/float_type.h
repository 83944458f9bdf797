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

}  // namespace blockptq
