// kernels/rms_norm.h over the vectors of one instruction set.
//
// The weight of a wide row fills the first-level cache, so that a few rows share each load of it.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"
#include "kernels/x86/combine.h"

namespace blockptq::kernels {

/// Four sums in turn, because one would wait for its own addition.
template <typename Vector, FloatType type>
double sum_of_squares(const uint8_t* x, int64_t count) {
  constexpr int64_t kStep = Vector::kLanes * element_size(type);
  constexpr int64_t kSums = 4;
  typename Vector::Floats sums[kSums];
  for (auto& sum : sums) {
    sum = Vector::broadcast(0);
  }
  const auto add = [&](const uint8_t* at, auto& sum) {
    const auto value = Vector::template load<type>(at);
    sum = Vector::multiply_add(value, value, sum);
  };
  for (; count >= kSums * Vector::kLanes; count -= kSums * Vector::kLanes) {
    for (auto& sum : sums) {
      add(x, sum);
      x += kStep;
    }
  }
  for (; count >= Vector::kLanes; count -= Vector::kLanes, x += kStep) {
    add(x, sums[0]);
  }
  uint8_t padded[kStep] = {};
  std::memcpy(padded, x, count * element_size(type));
  add(padded, sums[1]);
  return Vector::sum_of_lanes(sums[0]) + Vector::sum_of_lanes(sums[1]) +
         Vector::sum_of_lanes(sums[2]) + Vector::sum_of_lanes(sums[3]);
}

/// `count` rows to dense rows at `out`, while the rows that come next are on their way.
template <typename Vector, FloatType type, int64_t count>
void normalize_rows(const uint8_t* const* rows, const uint8_t* const* next_rows, int64_t dim,
                    const uint8_t* weight, double eps, uint8_t* out) {
  constexpr int64_t kSize = element_size(type);
  typename Vector::Floats inverse[count];
  for (int64_t i = 0; i < count; ++i) {
    const double mean = sum_of_squares<Vector, type>(rows[i], dim) / static_cast<double>(dim);
    inverse[i] = Vector::broadcast(static_cast<float>(1 / __builtin_sqrt(mean + eps)));
  }
  const auto scale = [&](const uint8_t* from, int64_t i, auto weights, uint8_t* to) {
    const auto normal = Vector::multiply(Vector::template load<type>(from), inverse[i]);
    Vector::template store<type>(Vector::multiply(normal, weights), to);
  };
  const int64_t whole = dim - dim % Vector::kLanes;
  for (int64_t d = 0; d < whole; d += Vector::kLanes) {
    const auto weights = Vector::template load<FloatType::f32>(weight + 4 * d);
    for (int64_t i = 0; i < count; ++i) {
      __builtin_prefetch(next_rows[i] + d * kSize);
      scale(rows[i] + d * kSize, i, weights, out + (i * dim + d) * kSize);
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    combine<Vector::kLanes, kSize, 4, kSize>(
        rows[i] + whole * kSize, weight + 4 * whole, dim - whole, out + (i * dim + whole) * kSize,
        [&](const uint8_t* from, const uint8_t* w, uint8_t* to) {
          scale(from, i, Vector::template load<FloatType::f32>(w), to);
        });
  }
}

template <typename Vector>
void rms_norm_vectors(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                      int64_t count, int64_t dim, const float* weight, double eps, void* out) {
  constexpr int64_t kGroup = 4;
  const auto* weight_bytes = reinterpret_cast<const uint8_t*>(weight);
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    const auto find_rows = [&](int64_t begin, const uint8_t** found) {
      for (int64_t i = begin; i < begin + kGroup && i < count; ++i) {
        const int64_t row = rows == nullptr ? i : rows[i];
        found[i - begin] = static_cast<const uint8_t*>(in) + row * in_stride * element_size(kType);
      }
    };
    const uint8_t* group[kGroup] = {};
    find_rows(0, group);
    auto* out_rows = static_cast<uint8_t*>(out);
    for (int64_t begin = 0; begin < count; begin += kGroup) {
      const uint8_t* next[kGroup] = {group[0], group[0], group[0], group[0]};
      find_rows(begin + kGroup, next);
      if (count - begin >= kGroup) {
        normalize_rows<Vector, kType, kGroup>(group, next, dim, weight_bytes, eps, out_rows);
      } else {
        for (int64_t i = 0; i < count - begin; ++i) {
          normalize_rows<Vector, kType, 1>(group + i, group + i, dim, weight_bytes, eps,
                                           out_rows + i * dim * element_size(kType));
        }
      }
      out_rows += kGroup * dim * element_size(kType);
      std::memcpy(group, next, sizeof group);
    }
  });
}

}  // namespace blockptq::kernels
