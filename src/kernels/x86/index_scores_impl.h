// kernels/index_scores.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Sums of `blocks` vectors of keys over all heads, whose dots are `keys` elements apart.
template <typename Vector, int64_t blocks>
void sum_heads(const uint8_t* dots, const float* weights, int64_t heads, int64_t keys,
               uint8_t* out) {
  constexpr int64_t kStep = 4 * Vector::kLanes;
  const auto zero = Vector::broadcast(0);
  typename Vector::Floats sums[blocks];
  for (auto& sum : sums) {
    sum = zero;
  }
  for (int64_t h = 0; h < heads; ++h) {
    const auto weight = Vector::broadcast(weights[h]);
    for (int64_t b = 0; b < blocks; ++b) {
      const auto dot = Vector::template load<FloatType::f32>(dots + 4 * h * keys + b * kStep);
      sums[b] = Vector::multiply_add(weight, Vector::max(zero, dot), sums[b]);
    }
  }
  for (int64_t b = 0; b < blocks; ++b) {
    Vector::template store<FloatType::f32>(sums[b], out + b * kStep);
  }
}

/// The last `count` < kLanes keys: the dots of each head through a padded buffer.
template <typename Vector>
void sum_heads_of_tail(const uint8_t* dots, const float* weights, int64_t heads, int64_t keys,
                       int64_t count, uint8_t* out) {
  const auto zero = Vector::broadcast(0);
  auto sums = zero;
  uint8_t padded[4 * Vector::kLanes] = {};
  for (int64_t h = 0; h < heads; ++h) {
    std::memcpy(padded, dots + 4 * h * keys, 4 * count);
    const auto dot = Vector::template load<FloatType::f32>(padded);
    sums = Vector::multiply_add(Vector::broadcast(weights[h]), Vector::max(zero, dot), sums);
  }
  Vector::template store<FloatType::f32>(sums, padded);
  std::memcpy(out, padded, 4 * count);
}

template <typename Vector>
void index_scores_vectors(const float* dots, const float* weights, int64_t queries, int64_t heads,
                          int64_t keys, float* out, int64_t out_stride) {
  constexpr int64_t kBlocks = 8;
  constexpr int64_t kLanes = Vector::kLanes;
  for (int64_t q = 0; q < queries; ++q) {
    const auto* query_dots = reinterpret_cast<const uint8_t*>(dots + q * heads * keys);
    const float* query_weights = weights + q * heads;
    auto* out_row = reinterpret_cast<uint8_t*>(out + q * out_stride);
    int64_t k = 0;
    for (; k + kBlocks * kLanes <= keys; k += kBlocks * kLanes) {
      sum_heads<Vector, kBlocks>(query_dots + 4 * k, query_weights, heads, keys, out_row + 4 * k);
    }
    for (; k + kLanes <= keys; k += kLanes) {
      sum_heads<Vector, 1>(query_dots + 4 * k, query_weights, heads, keys, out_row + 4 * k);
    }
    if (k < keys) {
      sum_heads_of_tail<Vector>(query_dots + 4 * k, query_weights, heads, keys, keys - k,
                                out_row + 4 * k);
    }
  }
}

}  // namespace blockptq::kernels
