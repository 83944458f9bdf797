// kernels/swiglu.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/types.h"
#include "kernels/x86/combine.h"
#include "kernels/x86/exp.h"

namespace blockptq::kernels {

/// x * sigmoid(x) = x / (1 + exp(-x)); 0 for x < -88
template <typename Vector>
typename Vector::Floats silu(typename Vector::Floats x) {
  const auto lowest = Vector::broadcast(-88);
  const auto negated = Vector::subtract(Vector::broadcast(0), Vector::max(lowest, x));
  const auto divisor = Vector::add(Vector::broadcast(1), exp_to_88<Vector>(negated));
  return Vector::zero_if_less(x, lowest, Vector::divide(x, divisor));
}

template <typename Vector>
void swiglu_vectors(const void* gate, const void* up, FloatType type, int64_t count, void* out) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    constexpr int64_t kSize = element_size(kType);
    combine<Vector::kLanes, kSize, kSize, kSize>(
        static_cast<const uint8_t*>(gate), static_cast<const uint8_t*>(up), count,
        static_cast<uint8_t*>(out), [](const uint8_t* g, const uint8_t* u, uint8_t* to) {
          const auto activation = silu<Vector>(Vector::template load<kType>(g));
          Vector::template store<kType>(
              Vector::multiply(activation, Vector::template load<kType>(u)), to);
        });
  });
}

}  // namespace blockptq::kernels
