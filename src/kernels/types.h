// Element types that kernels read and write.
#pragma once

#include <cstdint>
#include <type_traits>

namespace blockptq::kernels {

/// Element type of a floating-point buffer.
enum class FloatType : uint8_t { f32, bf16, f16 };

constexpr int64_t element_size(FloatType type) {
  return type == FloatType::f32 ? 4 : 2;
}

/// A FloatType known at compile time, as an argument: `Constant::value` is the type.
template <FloatType type>
using FloatTypeConstant = std::integral_constant<FloatType, type>;

/// Calls `function` with the FloatTypeConstant of `type`; returns what it returns.
template <typename Function>
decltype(auto) visit_float_type(FloatType type, Function&& function) {
  switch (type) {
    case FloatType::bf16:
      return function(FloatTypeConstant<FloatType::bf16>());
    case FloatType::f16:
      return function(FloatTypeConstant<FloatType::f16>());
    case FloatType::f32:
      break;
  }
  return function(FloatTypeConstant<FloatType::f32>());
}

}  // namespace blockptq::kernels
