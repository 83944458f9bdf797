// kernels/quantize_rows.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/quantize_rows.h"
#include "kernels/types.h"
#include "kernels/x86/groups.h"
#include "kernels/x86/quotient.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

template <typename Vector>
void quantize_rows_vectors(const void* in, FloatType type, const RowGroups& shape, int bits,
                           const float* scales, int8_t* codes) {
  const auto q_max = Vector::broadcast(static_cast<float>((1 << (bits - 1)) - 1));
  const auto q_min = Vector::broadcast(-static_cast<float>(1 << (bits - 1)));
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    constexpr int64_t kSize = element_size(kType);
    const auto* bytes = static_cast<const uint8_t*>(in);
    auto* out = reinterpret_cast<uint8_t*>(codes);
    for_each_group(shape, [&](int64_t /*row*/, int64_t index, int64_t begin, int64_t count) {
      const Divisor<Vector> divisor(scales[index]);
      transform<Vector::kLanes, kSize, 1>(
          bytes + begin * kSize, count, out + begin, [&](const uint8_t* from, uint8_t* to) {
            const auto x = Vector::template load<kType>(from);
            const auto rounded = quotient<Vector>(x, divisor).rounded;
            // In this order NaN becomes q_min.
            Vector::store_int8(Vector::min(Vector::max(rounded, q_min), q_max), to);
          });
    });
  });
}

/// scale * code of one group, the codes clamped to [low, high].
template <typename Vector, FloatType type, FloatType out_type>
void fake_quantize_group(const uint8_t* in, int64_t count, const Divisor<Vector>& divisor,
                         typename Vector::Floats low, typename Vector::Floats high, uint8_t* out) {
  const auto value_of = [&](typename Vector::Floats rounded) {
    // NaN passes as the second operand.
    return Vector::multiply(divisor.scale, Vector::min(high, Vector::max(low, rounded)));
  };
  if constexpr (type == FloatType::bf16 && out_type == FloatType::bf16) {
    transform<2 * Vector::kLanes, 2, 2>(in, count, out, [&](const uint8_t* from, uint8_t* to) {
      typename Vector::Floats a;
      typename Vector::Floats b;
      Vector::template load_pairs<type>(from, a, b);
      const Quotient<Vector> first = quotient<Vector>(a, divisor);
      const Quotient<Vector> second = quotient<Vector>(b, divisor);
      a = value_of(first.rounded);
      b = value_of(second.rounded);
      if (first.divided || second.divided) [[unlikely]] {
        Vector::store_bf16_pairs(a, b, to);
      } else {
        Vector::template store_bf16_pairs<false>(a, b, to);
      }
    });
  } else {
    transform<Vector::kLanes, element_size(type), element_size(out_type)>(
        in, count, out, [&](const uint8_t* from, uint8_t* to) {
          const auto x = Vector::template load<type>(from);
          Vector::template store<out_type>(value_of(quotient<Vector>(x, divisor).rounded), to);
        });
  }
}

template <typename Vector>
void fake_quantize_rows_vectors(const void* in, FloatType type, const RowGroups& shape, int bits,
                                const float* scales, const RowBounds& bounds, FloatType out_type,
                                void* out) {
  const auto q_max = Vector::broadcast(static_cast<float>((1 << (bits - 1)) - 1));
  const auto q_min = Vector::broadcast(-static_cast<float>(1 << (bits - 1)));
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      constexpr FloatType kIn = decltype(in_constant)::value;
      constexpr FloatType kOut = decltype(out_constant)::value;
      const auto* from_bytes = static_cast<const uint8_t*>(in);
      auto* to_bytes = static_cast<uint8_t*>(out);
      for_each_group(shape, [&](int64_t row, int64_t index, int64_t begin, int64_t count) {
        const Divisor<Vector> divisor(scales[index]);
        // Rounding keeps the order, so that the bounds may as well clamp the codes.
        auto low = q_min;
        auto high = q_max;
        if (bounds.low != nullptr) {
          const auto code_of = [&](float bound) {
            const auto ratio = Vector::divide(Vector::broadcast(bound), divisor.scale);
            return Vector::min(Vector::max(Vector::round(ratio), q_min), q_max);
          };
          low = code_of(bounds.low[row]);
          high = code_of(bounds.high[row]);
        }
        fake_quantize_group<Vector, kIn, kOut>(from_bytes + begin * element_size(kIn), count,
                                               divisor, low, high,
                                               to_bytes + begin * element_size(kOut));
      });
    });
  });
}

}  // namespace blockptq::kernels
