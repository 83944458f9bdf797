// Rotation by rotary position embeddings (arXiv 2104.09864).
//
// Shapes: tokens x heads x dim, dim even.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Where the heads of a tensor lie, in elements; the elements of a head are contiguous.
struct HeadStrides {
  int64_t token = 0;
  int64_t head = 0;
};

/// Rotates the pairs (a, b) of every head by the angles of its token, in fp32, rounded once:
///   out[i] = a * cos[t, i] - b * sin[t, i],   out[dim/2 + i] = b * cos[t, i] + a * sin[t, i]
/// where pair i is (in[2i], in[2i + 1]) if `interleaved`, otherwise (in[i], in[dim/2 + i]).
///
/// cos, sin: dense [tokens, dim/2]. In each sum the cosine's product is rounded, the sine's is not
/// (one fused multiply-add). `out` is of the same type; it must not overlap `in`, except that it
/// may be `in` (with the same strides) where the pairs are not interleaved. Typed buffers need no
/// alignment.
void rotate(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens, int64_t heads,
            int64_t dim, const float* cos, const float* sin, bool interleaved, void* out,
            HeadStrides out_strides);

}  // namespace blockptq::kernels
