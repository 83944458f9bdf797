// The loop of kernels that turn a run of elements into as many other elements.
#pragma once

#include <cstdint>
#include <cstring>

namespace blockptq::kernels {

/// Calls step(in, out) for every `group` elements of `in_size` bytes, which writes as many elements
/// of `out_size` bytes. The last, incomplete group goes through padded buffers. Inlined, so that
/// the vectors that `step` captures stay in registers.
template <int64_t group, int64_t in_size, int64_t out_size, typename Step>
[[gnu::always_inline]] inline void transform(const uint8_t* in, int64_t count, uint8_t* out,
                                             const Step& step) {
  for (; count >= group; count -= group) {
    step(in, out);
    in += group * in_size;
    out += group * out_size;
  }
  if (count > 0) {
    uint8_t padded_in[group * in_size] = {};
    uint8_t padded_out[group * out_size];
    std::memcpy(padded_in, in, count * in_size);
    step(padded_in, padded_out);
    std::memcpy(out, padded_out, count * out_size);
  }
}

}  // namespace blockptq::kernels
