// Element types that kernels read and write.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// Element type of a floating-point buffer.
enum class FloatType : uint8_t { f32, bf16, f16 };

constexpr int64_t element_size(FloatType type) {
  return type == FloatType::f32 ? 4 : 2;
}

}  // namespace blockptq::kernels
