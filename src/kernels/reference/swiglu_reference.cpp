#include "kernels/reference/swiglu_reference.h"

#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void swiglu_reference(const void* gate, const void* up, FloatType type, int64_t count, void* out) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t i = 0; i < count; ++i) {
      const float x = load_element<kType>(gate, i);
      const float silu = x < -88 ? 0 : x / (1 + std::exp(-x));
      store_element<kType>(silu * load_element<kType>(up, i), out, i);
    }
  });
}

}  // namespace blockptq::kernels
