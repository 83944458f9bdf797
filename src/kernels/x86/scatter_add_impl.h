// kernels/scatter_add.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/types.h"
#include "kernels/x86/combine.h"

namespace blockptq::kernels {

template <typename Vector>
void scatter_add_rows_vectors(const void* in, FloatType type, const float* weights,
                              const int64_t* rows, int64_t count, int64_t dim, void* out) {
  // A chunk is added while the same one of the next rows, which may lie anywhere, is on its way.
  constexpr int64_t kChunk = 64;
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    constexpr int64_t kSize = element_size(kType);
    const auto in_at = [&](int64_t i, int64_t d) {
      return static_cast<const uint8_t*>(in) + (i * dim + d) * kSize;
    };
    const auto out_at = [&](int64_t i, int64_t d) {
      return static_cast<uint8_t*>(out) + (rows[i] * dim + d) * kSize;
    };
    for (int64_t i = 0; i < count; ++i) {
      const int64_t next = i + 1 < count ? i + 1 : i;
      const auto weight = Vector::broadcast(weights[i]);
      for (int64_t d = 0; d < dim; d += kChunk) {
        const int64_t length = dim - d < kChunk ? dim - d : kChunk;
        for (int64_t ahead = d; ahead < d + length; ahead += 64 / kSize) {
          __builtin_prefetch(in_at(next, ahead));
          __builtin_prefetch(out_at(next, ahead), 1);
        }
        combine<Vector::kLanes, kSize, kSize, kSize>(
            in_at(i, d), out_at(i, d), length, out_at(i, d),
            [&](const uint8_t* x, const uint8_t* y, uint8_t* to) {
              const auto sum = Vector::multiply_add(weight, Vector::template load<kType>(x),
                                                    Vector::template load<kType>(y));
              Vector::template store<kType>(sum, to);
            });
      }
    }
  });
}

}  // namespace blockptq::kernels
