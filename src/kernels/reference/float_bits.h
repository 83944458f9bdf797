// Scalar conversions between fp32 and the narrow floating-point formats: the specification that
// every other conversion in kernels/ equals bit for bit.
//
// Rounding is half to even. NaN stays NaN: narrowing keeps its sign and upper payload bits and
// makes it quiet, as the F16C instructions do. Buffers need no alignment.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/types.h"

namespace blockptq::kernels {

/// E4M3fn: 1 sign, 4 exponent (bias 7), 3 mantissa bits; 0x7f and 0xff are NaN, no infinity.
inline float float_from_e4m3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80U) << 24;
  const uint32_t magnitude = code & 0x7fU;
  if (magnitude == 0x7fU) {
    return std::bit_cast<float>(sign | 0x7fc00000U);
  }
  constexpr uint32_t kRebias = (127 - 7) << 23;
  const float value = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9F
                                    : std::bit_cast<float>((magnitude << 20) + kRebias);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

inline bool is_nan_e4m3(uint8_t code) {
  return (code & 0x7fU) == 0x7fU;
}

inline float float_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t bf16_from_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {
    return static_cast<uint16_t>((bits >> 16) | 0x40U);
  }
  const uint32_t half = 0x7fffU + ((bits >> 16) & 1U);
  return static_cast<uint16_t>((bits + half) >> 16);
}

inline float float_from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0) {
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  if (exponent == 31) {
    const uint32_t quiet = mantissa == 0 ? 0 : 0x400000U;
    return std::bit_cast<float>(sign | 0x7f800000U | quiet | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 127 - 15) << 23) | (mantissa << 13));
}

inline uint16_t f16_from_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  uint32_t result = 0;
  if (magnitude > 0x7f800000U) {
    result = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  } else if (magnitude >= 0x47800000U) {  // 2^16
    result = 0x7c00U;
  } else if (magnitude < 0x38800000U) {  // 2^-14: subnormal, in steps of 2^-24, the ulp of 0.5
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    result = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5F);
  } else {
    constexpr uint32_t kRebias = (127 - 15) << 23;
    const uint32_t half = 0xfffU + ((magnitude >> 13) & 1U);
    result = (magnitude - kRebias + half) >> 13;  // a carry reaches infinity by itself
  }
  return static_cast<uint16_t>(sign | result);
}

/// Element `index` of a buffer of `type`.
template <FloatType type>
float load_element(const void* buffer, int64_t index) {
  const auto* at = static_cast<const uint8_t*>(buffer) + index * element_size(type);
  if constexpr (type == FloatType::f32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  } else {
    uint16_t bits = 0;
    std::memcpy(&bits, at, sizeof bits);
    return type == FloatType::bf16 ? float_from_bf16(bits) : float_from_f16(bits);
  }
}

/// Rounds `value` to `type` and stores it as element `index` of a buffer.
template <FloatType type>
void store_element(float value, void* buffer, int64_t index) {
  auto* at = static_cast<uint8_t*>(buffer) + index * element_size(type);
  if constexpr (type == FloatType::f32) {
    std::memcpy(at, &value, sizeof value);
  } else {
    const uint16_t bits = type == FloatType::bf16 ? bf16_from_float(value) : f16_from_float(value);
    std::memcpy(at, &bits, sizeof bits);
  }
}

}  // namespace blockptq::kernels
