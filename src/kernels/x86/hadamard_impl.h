// kernels/hadamard.h over the vectors of one instruction set.
//
// A stage takes pairs of neighbours apart: sums go to the first half, differences to the second.
// After log2(order) such stages everything is back in its place (the perfect shuffles cancel), and
// no stage needs elements of the same vector.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

template <typename Vector>
void hadamard_stage(const uint8_t* in, int64_t order, uint8_t* out) {
  constexpr int64_t kStep = Vector::kLanes * 4;
  uint8_t* differences = out + order / 2 * 4;
  const auto pairs_to = [](const uint8_t* from, uint8_t* sums, uint8_t* to) {
    typename Vector::Floats a;
    typename Vector::Floats b;
    Vector::template load_pairs<FloatType::f32>(from, a, b);
    Vector::template store<FloatType::f32>(Vector::add(a, b), sums);
    Vector::template store<FloatType::f32>(Vector::subtract(a, b), to);
  };
  int64_t pairs = order / 2;
  for (; pairs >= Vector::kLanes; pairs -= Vector::kLanes) {
    pairs_to(in, out, differences);
    in += 2 * kStep;
    out += kStep;
    differences += kStep;
  }
  if (pairs > 0) {
    uint8_t padded[2 * kStep] = {};
    uint8_t sums[kStep];
    uint8_t rest[kStep];
    std::memcpy(padded, in, pairs * 8);
    pairs_to(padded, sums, rest);
    std::memcpy(out, sums, pairs * 4);
    std::memcpy(differences, rest, pairs * 4);
  }
}

template <typename Vector>
void hadamard_rows_vectors(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                           float* scratch) {
  const auto factor =
      Vector::broadcast(static_cast<float>(1 / __builtin_sqrt(static_cast<double>(order))));
  auto* from = reinterpret_cast<uint8_t*>(scratch);
  auto* to = reinterpret_cast<uint8_t*>(scratch + order);
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    constexpr int64_t kSize = element_size(kType);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t begin = row * order * kSize;
      transform<Vector::kLanes, kSize, 4>(
          static_cast<const uint8_t*>(in) + begin, order, from, [](const uint8_t* x, uint8_t* y) {
            Vector::template store<FloatType::f32>(Vector::template load<kType>(x), y);
          });
      for (int64_t step = 1; step < order; step *= 2) {
        hadamard_stage<Vector>(from, order, to);
        uint8_t* done = to;
        to = from;
        from = done;
      }
      transform<Vector::kLanes, 4, kSize>(
          from, order, static_cast<uint8_t*>(out) + begin, [&](const uint8_t* x, uint8_t* y) {
            const auto value = Vector::template load<FloatType::f32>(x);
            Vector::template store<kType>(Vector::multiply(value, factor), y);
          });
    }
  });
}

}  // namespace blockptq::kernels
