// kernels/row_range.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/row_groups.h"
#include "kernels/types.h"
#include "kernels/x86/groups.h"

namespace blockptq::kernels {

/// Calls step(value, chain) for vectors of `count` > 0 elements in any order; `chain` is 0 to 3 in
/// turn, so that four chains of operations run side by side. Copies of the first element fill up
/// the last vectors.
template <typename Vector, FloatType type, typename Step>
[[gnu::always_inline]] inline void reduce(const uint8_t* x, int64_t count, const Step& step) {
  constexpr int64_t kSize = element_size(type);
  constexpr int64_t kPair = 2 * Vector::kLanes;
  const auto visit = [&](const uint8_t* at, int chain) {
    if constexpr (type == FloatType::bf16) {
      typename Vector::Floats a;
      typename Vector::Floats b;
      Vector::template load_pairs<type>(at, a, b);
      step(a, chain);
      step(b, chain + 1);
    } else {
      step(Vector::template load<type>(at), chain);
      step(Vector::template load<type>(at + Vector::kLanes * kSize), chain + 1);
    }
  };
  const uint8_t* first = x;
  for (; count >= 2 * kPair; count -= 2 * kPair, x += 2 * kPair * kSize) {
    visit(x, 0);
    visit(x + kPair * kSize, 2);
  }
  for (; count >= kPair; count -= kPair, x += kPair * kSize) {
    visit(x, 0);
  }
  if (count > 0) {
    uint8_t padded[kPair * kSize];
    for (int64_t i = 0; i < kPair; ++i) {
      std::memcpy(padded + i * kSize, first, kSize);
    }
    std::memcpy(padded, x, count * kSize);
    visit(padded, 2);
  }
}

template <typename Vector, FloatType type>
float absmax(const uint8_t* x, int64_t count) {
  typename Vector::Floats maxima[4];
  for (auto& max : maxima) {
    max = Vector::broadcast(0);
  }
  reduce<Vector, type>(x, count, [&](auto value, int chain) {
    maxima[chain] = Vector::max_magnitude(maxima[chain], Vector::magnitude(value));
  });
  return Vector::max_magnitude_of_lanes(Vector::max_magnitude(
      Vector::max_magnitude(maxima[0], maxima[1]), Vector::max_magnitude(maxima[2], maxima[3])));
}

template <typename Vector, FloatType type>
void range_of_row(const uint8_t* x, int64_t count, float& min, float& max) {
  typename Vector::Floats minima[4];
  typename Vector::Floats maxima[4];
  for (int i = 0; i < 4; ++i) {
    minima[i] = Vector::broadcast(__builtin_inff());
    maxima[i] = Vector::broadcast(-__builtin_inff());
  }
  reduce<Vector, type>(x, count, [&](auto value, int chain) {
    minima[chain] = Vector::min(value, minima[chain]);  // this order leaves NaN out
    maxima[chain] = Vector::max(value, maxima[chain]);
  });
  const auto least =
      Vector::min(Vector::min(minima[0], minima[1]), Vector::min(minima[2], minima[3]));
  const auto most =
      Vector::max(Vector::max(maxima[0], maxima[1]), Vector::max(maxima[2], maxima[3]));
  min = -Vector::max_of_lanes(Vector::subtract(Vector::broadcast(0), least));
  max = Vector::max_of_lanes(most);
}

template <typename Vector>
void group_absmax_vectors(const void* in, FloatType type, const RowGroups& shape, float* maxima) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    const auto* bytes = static_cast<const uint8_t*>(in);
    for_each_group(shape, [&](int64_t /*row*/, int64_t index, int64_t begin, int64_t count) {
      maxima[index] = absmax<Vector, kType>(bytes + begin * element_size(kType), count);
    });
  });
}

template <typename Vector>
void row_range_vectors(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                       float* maxima) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    const auto* bytes = static_cast<const uint8_t*>(in);
    for (int64_t row = 0; row < rows; ++row) {
      range_of_row<Vector, kType>(bytes + row * cols * element_size(kType), cols, minima[row],
                                  maxima[row]);
    }
  });
}

}  // namespace blockptq::kernels
