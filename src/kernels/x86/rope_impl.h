// kernels/rope.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/rope.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Rotates the kLanes pairs that begin at element `i` of a head with `half` pairs.
template <typename Vector, FloatType type, bool interleaved>
[[gnu::always_inline]] inline void rotate_pairs(const uint8_t* in, const float* cos,
                                                const float* sin, int64_t i, int64_t half,
                                                uint8_t* out) {
  constexpr int64_t kSize = element_size(type);
  typename Vector::Floats a;
  typename Vector::Floats b;
  if constexpr (interleaved) {
    Vector::template load_pairs<type>(in + 2 * i * kSize, a, b);
  } else {
    a = Vector::template load<type>(in + i * kSize);
    b = Vector::template load<type>(in + (half + i) * kSize);
  }
  const auto c = Vector::template load<FloatType::f32>(reinterpret_cast<const uint8_t*>(cos + i));
  const auto s = Vector::template load<FloatType::f32>(reinterpret_cast<const uint8_t*>(sin + i));
  const auto first = Vector::subtract_product(b, s, Vector::multiply(a, c));
  const auto second = Vector::multiply_add(a, s, Vector::multiply(b, c));
  Vector::template store<type>(first, out + i * kSize);
  Vector::template store<type>(second, out + (half + i) * kSize);
}

/// The last `count` < kLanes pairs, as a padded head of kLanes pairs.
template <typename Vector, FloatType type, bool interleaved>
void rotate_tail(const uint8_t* in, const float* cos, const float* sin, int64_t half, int64_t count,
                 uint8_t* out) {
  constexpr int64_t kSize = element_size(type);
  constexpr int64_t kHalf = Vector::kLanes * kSize;
  const int64_t begin = half - count;
  uint8_t padded_in[2 * kHalf] = {};
  uint8_t padded_out[2 * kHalf];
  float padded_cos[Vector::kLanes] = {};
  float padded_sin[Vector::kLanes] = {};
  if constexpr (interleaved) {
    std::memcpy(padded_in, in + 2 * begin * kSize, 2 * count * kSize);
  } else {
    std::memcpy(padded_in, in + begin * kSize, count * kSize);
    std::memcpy(padded_in + kHalf, in + (half + begin) * kSize, count * kSize);
  }
  std::memcpy(padded_cos, cos + begin, count * sizeof(float));
  std::memcpy(padded_sin, sin + begin, count * sizeof(float));
  rotate_pairs<Vector, type, interleaved>(padded_in, padded_cos, padded_sin, 0, Vector::kLanes,
                                          padded_out);
  std::memcpy(out + begin * kSize, padded_out, count * kSize);
  std::memcpy(out + (half + begin) * kSize, padded_out + kHalf, count * kSize);
}

template <typename Vector, FloatType type, bool interleaved>
void rotate_heads(const uint8_t* in, HeadStrides in_strides, int64_t tokens, int64_t heads,
                  int64_t dim, const float* cos, const float* sin, uint8_t* out,
                  HeadStrides out_strides) {
  constexpr int64_t kSize = element_size(type);
  const int64_t half = dim / 2;
  const int64_t whole = half - half % Vector::kLanes;
  for (int64_t t = 0; t < tokens; ++t, cos += half, sin += half) {
    for (int64_t h = 0; h < heads; ++h) {
      const uint8_t* from = in + (t * in_strides.token + h * in_strides.head) * kSize;
      uint8_t* to = out + (t * out_strides.token + h * out_strides.head) * kSize;
      for (int64_t i = 0; i < whole; i += Vector::kLanes) {
        rotate_pairs<Vector, type, interleaved>(from, cos, sin, i, half, to);
      }
      if (whole < half) {
        rotate_tail<Vector, type, interleaved>(from, cos, sin, half, half - whole, to);
      }
    }
  }
}

template <typename Vector>
void rotate_vectors(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                    int64_t heads, int64_t dim, const float* cos, const float* sin,
                    bool interleaved, void* out, HeadStrides out_strides) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    const auto run =
        interleaved ? rotate_heads<Vector, kType, true> : rotate_heads<Vector, kType, false>;
    run(static_cast<const uint8_t*>(in), in_strides, tokens, heads, dim, cos, sin,
        static_cast<uint8_t*>(out), out_strides);
  });
}

}  // namespace blockptq::kernels
