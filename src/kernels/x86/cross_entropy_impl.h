// kernels/cross_entropy.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cross_entropy.h"
#include "kernels/types.h"
#include "kernels/x86/exp.h"

namespace blockptq::kernels {

/// The last count % kLanes elements, padded with -infinity.
template <typename Vector, FloatType type>
typename Vector::Floats load_tail(const uint8_t* logits, int64_t count) {
  constexpr int64_t kSize = element_size(type);
  const int64_t length = count % Vector::kLanes;
  uint8_t padded[Vector::kLanes * kSize];
  Vector::template store<type>(Vector::broadcast(-__builtin_inff()), padded);
  std::memcpy(padded, logits + (count - length) * kSize, length * kSize);
  return Vector::template load<type>(padded);
}

/// Statistics of `count` logits, few enough to stay in the first-level cache between two passes.
template <typename Vector, FloatType type>
SoftmaxStats chunk_stats(const uint8_t* logits, int64_t count) {
  constexpr int64_t kStep = Vector::kLanes * element_size(type);
  const uint8_t* end = logits + count / Vector::kLanes * kStep;
  const auto tail = load_tail<Vector, type>(logits, count);

  auto maxima = Vector::max(tail, Vector::broadcast(-__builtin_inff()));
  for (const uint8_t* at = logits; at != end; at += kStep) {
    maxima = Vector::max(Vector::template load<type>(at), maxima);
  }
  const float max = Vector::max_of_lanes(maxima);

  const auto shift = Vector::broadcast(max == -__builtin_inff() ? 0 : max);
  auto sums = exp_to_88<Vector>(Vector::subtract(tail, shift));
  for (const uint8_t* at = logits; at != end; at += kStep) {
    const auto x = Vector::subtract(Vector::template load<type>(at), shift);
    sums = Vector::add(sums, exp_to_88<Vector>(x));
  }
  return {.max = max, .sum = Vector::sum_of_lanes(sums)};
}

template <typename Vector>
void accumulate_softmax_vectors(const void* logits, FloatType type, int64_t tokens, int64_t width,
                                int64_t stride, SoftmaxStats* stats) {
  constexpr int64_t kChunk = 1024;  // also bounds how many terms a float lane adds up
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* row = static_cast<const uint8_t*>(logits) + t * stride * element_size(kType);
      for (int64_t begin = 0; begin < width; begin += kChunk) {
        const int64_t count = width - begin < kChunk ? width - begin : kChunk;
        merge_softmax(chunk_stats<Vector, kType>(row + begin * element_size(kType), count),
                      stats[t]);
      }
    }
  });
}

}  // namespace blockptq::kernels
