#include "kernels/reference/rope_reference.h"

#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void rotate_reference(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                      int64_t heads, int64_t dim, const float* cos, const float* sin,
                      bool interleaved, void* out, HeadStrides out_strides) {
  const int64_t half = dim / 2;
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t from = t * in_strides.token + h * in_strides.head;
        const int64_t to = t * out_strides.token + h * out_strides.head;
        for (int64_t i = 0; i < half; ++i) {
          const float c = cos[t * half + i];
          const float s = sin[t * half + i];
          const float a = load_element<kType>(in, from + (interleaved ? 2 * i : i));
          const float b = load_element<kType>(in, from + (interleaved ? 2 * i + 1 : half + i));
          store_element<kType>(std::fma(-b, s, a * c), out, to + i);
          store_element<kType>(std::fma(a, s, b * c), out, to + half + i);
        }
      }
    }
  });
}

}  // namespace blockptq::kernels
