// kernels/masked_softmax.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/masked_softmax.h"
#include "kernels/types.h"
#include "kernels/x86/exp.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

/// Copies the scores of `count` keys to `row`, -infinity for those whose byte in `visible` (null:
/// all are visible) is 0 and beyond `count`, up to a whole vector. Returns the largest.
template <typename Vector, FloatType type>
float gather_visible(const uint8_t* scores, const uint8_t* visible, int64_t count, uint8_t* row) {
  constexpr int64_t kSize = element_size(type);
  const auto hidden = Vector::broadcast(-__builtin_inff());
  auto maxima = hidden;
  const auto visit = [&](const uint8_t* from, const uint8_t* shown, uint8_t* to) {
    const auto value = Vector::where_nonzero(shown, Vector::template load<type>(from), hidden);
    maxima = Vector::max(value, maxima);
    Vector::template store<FloatType::f32>(value, to);
  };
  uint8_t all[Vector::kLanes];
  std::memset(all, 1, sizeof all);
  const uint8_t* shown = visible == nullptr ? all : visible;
  const int64_t shown_step = visible == nullptr ? 0 : Vector::kLanes;
  for (; count >= Vector::kLanes; count -= Vector::kLanes) {
    visit(scores, shown, row);
    scores += Vector::kLanes * kSize;
    shown += shown_step;
    row += Vector::kLanes * 4;
  }
  if (count > 0) {
    uint8_t padded_scores[Vector::kLanes * kSize] = {};
    uint8_t padded_shown[Vector::kLanes] = {};
    std::memcpy(padded_scores, scores, count * kSize);
    std::memcpy(padded_shown, shown, count);
    visit(padded_scores, padded_shown, row);
  }
  return Vector::max_of_lanes(maxima);
}

/// row = exp(scale * (row - max)) for `count` elements and up to a whole vector; returns the sum.
template <typename Vector>
double exponentiate(uint8_t* row, int64_t count, float scale, float max) {
  constexpr int64_t kChunk = 1024;  // bounds how many terms a float lane adds up
  const auto scales = Vector::broadcast(scale);
  const auto shift = Vector::broadcast(max == -__builtin_inff() ? 0 : max);
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = count - begin < kChunk ? count : begin + kChunk;
    auto sums = Vector::broadcast(0);
    for (int64_t i = begin; i < end; i += Vector::kLanes) {
      const auto x = Vector::subtract(Vector::template load<FloatType::f32>(row + 4 * i), shift);
      const auto exponential = exp_to_88<Vector>(Vector::multiply(x, scales));
      Vector::template store<FloatType::f32>(exponential, row + 4 * i);
      sums = Vector::add(sums, exponential);
    }
    sum += Vector::sum_of_lanes(sums);
  }
  return sum;
}

/// One row of `count` keys that may be visible; row: scratch.
template <typename Vector, FloatType in_type, FloatType out_type>
void softmax_row(const uint8_t* scores, const uint8_t* visible, int64_t count, float scale,
                 uint8_t* out, uint8_t* row) {
  const float max = gather_visible<Vector, in_type>(scores, visible, count, row);
  const double sum = exponentiate<Vector>(row, count, scale, max);
  const auto inverse = Vector::broadcast(static_cast<float>(1 / sum));
  const auto smallest = Vector::broadcast(0x1p-126F);
  transform<Vector::kLanes, 4, element_size(out_type)>(
      row, count, out, [&](const uint8_t* from, uint8_t* to) {
        const auto part = Vector::template load<FloatType::f32>(from);
        // Not the product for a hidden key, which is NaN where the sum is 0 or NaN.
        const auto value = Vector::zero_if_less(part, smallest, Vector::multiply(part, inverse));
        Vector::template store<out_type>(value, to);
      });
}

template <typename Vector>
void masked_softmax_vectors(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                            int64_t keys, float scale, const Visibility& visible,
                            FloatType out_type, void* out, float* row) {
  // The keys from this one on are hidden from query i.
  const auto end_of_visible = [&](int64_t i) {
    const int64_t end = visible.bytes != nullptr ? keys : visible.first_query + i + 1;
    return end < 0 ? 0 : end > keys ? keys : end;
  };
  visit_float_type(in_type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      constexpr FloatType kIn = decltype(in_constant)::value;
      constexpr FloatType kOut = decltype(out_constant)::value;
      for (int64_t i = 0; i < heads * queries; ++i) {
        const int64_t query = i % queries;
        const uint8_t* bytes =
            visible.bytes == nullptr ? nullptr : visible.bytes + query * visible.stride;
        const int64_t end = end_of_visible(query);
        const auto* in_row = static_cast<const uint8_t*>(scores) + i * keys * element_size(kIn);
        auto* out_row = static_cast<uint8_t*>(out) + i * keys * element_size(kOut);
        softmax_row<Vector, kIn, kOut>(in_row, bytes, end, scale, out_row,
                                       reinterpret_cast<uint8_t*>(row));
        std::memset(out_row + end * element_size(kOut), 0, (keys - end) * element_size(kOut));
      }
    });
  });
}

}  // namespace blockptq::kernels
