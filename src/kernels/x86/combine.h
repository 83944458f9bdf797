// The loop of kernels that combine two runs of elements into a third.
#pragma once

#include <cstdint>
#include <cstring>

namespace blockptq::kernels {

/// Calls step(a, b, out) for every `group` elements, of `a_size`, `b_size` and `out_size` bytes;
/// otherwise as transform(). `out` may be `a` or `b` where the sizes are the same.
template <int64_t group, int64_t a_size, int64_t b_size, int64_t out_size, typename Step>
[[gnu::always_inline]] inline void combine(const uint8_t* a, const uint8_t* b, int64_t count,
                                           uint8_t* out, const Step& step) {
  for (; count >= group; count -= group) {
    step(a, b, out);
    a += group * a_size;
    b += group * b_size;
    out += group * out_size;
  }
  if (count > 0) {
    uint8_t padded_a[group * a_size] = {};
    uint8_t padded_b[group * b_size] = {};
    uint8_t padded_out[group * out_size];
    std::memcpy(padded_a, a, count * a_size);
    std::memcpy(padded_b, b, count * b_size);
    step(padded_a, padded_b, padded_out);
    std::memcpy(out, padded_out, count * out_size);
  }
}

}  // namespace blockptq::kernels
