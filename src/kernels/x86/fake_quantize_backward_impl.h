// kernels/fake_quantize_backward.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/fake_quantize_backward.h"
#include "kernels/types.h"
#include "kernels/x86/combine.h"
#include "kernels/x86/groups.h"
#include "kernels/x86/quotient.h"

namespace blockptq::kernels {

/// Calls step(a, b) for every `group` elements; zeros fill up the last ones.
template <int64_t group, int64_t a_size, int64_t b_size, typename Step>
[[gnu::always_inline]] inline void visit_pairs(const uint8_t* a, const uint8_t* b, int64_t count,
                                               const Step& step) {
  for (; count >= group; count -= group, a += group * a_size, b += group * b_size) {
    step(a, b);
  }
  if (count > 0) {
    uint8_t padded_a[group * a_size] = {};
    uint8_t padded_b[group * b_size] = {};
    std::memcpy(padded_a, a, count * a_size);
    std::memcpy(padded_b, b, count * b_size);
    step(padded_a, padded_b);
  }
}

/// One group; returns the gradient of its scale.
template <typename Vector, FloatType type, FloatType grad_type>
float group_backward(const uint8_t* in, int64_t count, int bits, float scale,
                     const uint8_t* grad_out, uint8_t* grad_in) {
  const auto q_max = Vector::broadcast(static_cast<float>((1 << (bits - 1)) - 1));
  const auto q_min = Vector::broadcast(-static_cast<float>(1 << (bits - 1)));
  const Divisor<Vector> divisor(scale);
  auto sum = Vector::broadcast(0);
  const auto pass = [&](const uint8_t* x, const uint8_t* grad) {
    const auto gradient = Vector::template load<grad_type>(grad);
    const auto [value, rounded, divided] =
        quotient<Vector>(Vector::template load<type>(x), divisor);
    const auto code = Vector::min(q_max, Vector::max(q_min, rounded));
    const auto zero_outside = [&, rounded = rounded](auto inside) {
      return Vector::zero_if_less(q_max, rounded, Vector::zero_if_less(rounded, q_min, inside));
    };
    sum = Vector::multiply_add(gradient, Vector::subtract(code, zero_outside(value)), sum);
    return zero_outside(gradient);
  };
  constexpr int64_t kSize = element_size(type);
  constexpr int64_t kGradSize = element_size(grad_type);
  if (grad_in == nullptr) {
    visit_pairs<Vector::kLanes, kSize, kGradSize>(in, grad_out, count, pass);
  } else {
    combine<Vector::kLanes, kSize, kGradSize, kSize>(
        in, grad_out, count, grad_in, [&](const uint8_t* x, const uint8_t* grad, uint8_t* to) {
          Vector::template store<type>(pass(x, grad), to);
        });
  }
  return static_cast<float>(Vector::sum_of_lanes(sum));
}

template <typename Vector>
void fake_quantize_rows_backward_vectors(const void* in, FloatType type, const RowGroups& shape,
                                         int bits, const float* scales, const void* grad_out,
                                         FloatType grad_type, void* grad_in, float* grad_scales) {
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(grad_type, [&](auto grad_constant) {
      constexpr FloatType kIn = decltype(in_constant)::value;
      constexpr FloatType kGrad = decltype(grad_constant)::value;
      const auto* x = static_cast<const uint8_t*>(in);
      const auto* grad = static_cast<const uint8_t*>(grad_out);
      auto* to = static_cast<uint8_t*>(grad_in);
      for_each_group(shape, [&](int64_t /*row*/, int64_t index, int64_t begin, int64_t count) {
        grad_scales[index] = group_backward<Vector, kIn, kGrad>(
            x + begin * element_size(kIn), count, bits, scales[index],
            grad + begin * element_size(kGrad),
            to == nullptr ? nullptr : to + begin * element_size(kIn));
      });
    });
  });
}

template <typename Vector>
void bounded_rows_backward_vectors(const void* in, FloatType type, int64_t rows, int64_t cols,
                                   const float* scales, const RowBounds& bounds,
                                   const void* grad_out, FloatType grad_type,
                                   const BoundedGradients& gradients) {
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(grad_type, [&](auto grad_constant) {
      constexpr FloatType kIn = decltype(in_constant)::value;
      constexpr FloatType kGrad = decltype(grad_constant)::value;
      for (int64_t row = 0; row < rows; ++row) {
        const Divisor<Vector> divisor(scales[row]);
        const auto low = Vector::broadcast(bounds.low[row]);
        const auto high = Vector::broadcast(bounds.high[row]);
        auto scale_sum = Vector::broadcast(0);
        auto low_sum = scale_sum;
        auto high_sum = scale_sum;
        const auto add_where_less = [&](auto a, auto b, auto gradient, auto& sum) {
          sum = Vector::add(sum, Vector::subtract(gradient, Vector::zero_if_less(a, b, gradient)));
        };
        visit_pairs<Vector::kLanes, element_size(kIn), element_size(kGrad)>(
            static_cast<const uint8_t*>(in) + row * cols * element_size(kIn),
            static_cast<const uint8_t*>(grad_out) + row * cols * element_size(kGrad), cols,
            [&](const uint8_t* at, const uint8_t* grad) {
              const auto x = Vector::template load<kIn>(at);
              const auto gradient = Vector::template load<kGrad>(grad);
              const auto bounded = Vector::min(high, Vector::max(low, x));
              const auto [value, rounded, divided] = quotient<Vector>(bounded, divisor);
              const auto error = Vector::subtract(rounded, value);
              scale_sum = Vector::multiply_add(gradient, error, scale_sum);
              add_where_less(x, low, gradient, low_sum);
              add_where_less(high, x, gradient, high_sum);
            });
        gradients.scales[row] = static_cast<float>(Vector::sum_of_lanes(scale_sum));
        gradients.low[row] = static_cast<float>(Vector::sum_of_lanes(low_sum));
        gradients.high[row] = static_cast<float>(Vector::sum_of_lanes(high_sum));
      }
    });
  });
}

/// One group, whose largest magnitude `max` is above 0. Few elements are that large, so that most
/// vectors of `grad` are left alone.
template <typename Vector, FloatType type>
void add_at_maximum(const uint8_t* in, int64_t count, float max, float amount, uint8_t* grad) {
  constexpr int64_t kSize = element_size(type);
  constexpr int64_t kStep = Vector::kLanes * kSize;
  const auto maximum = Vector::broadcast(max);
  const auto magnitude = [](const uint8_t* at) {
    return Vector::magnitude(Vector::template load<type>(at));
  };
  auto ties = Vector::broadcast(0);
  visit_pairs<Vector::kLanes, kSize, kSize>(in, in, count, [&](const uint8_t* x, const uint8_t*) {
    ties = Vector::add(ties, Vector::zero_if_less(magnitude(x), maximum, Vector::broadcast(1)));
  });
  const auto part = Vector::broadcast(amount / static_cast<float>(Vector::sum_of_lanes(ties)));
  const auto add = [&](const uint8_t* x, const uint8_t* from, uint8_t* to) {
    const auto parts = Vector::with_sign_of(part, Vector::template load<type>(x));
    const auto added = Vector::zero_if_less(magnitude(x), maximum, parts);
    Vector::template store<type>(Vector::add(Vector::template load<type>(from), added), to);
  };
  for (; count >= Vector::kLanes; count -= Vector::kLanes, in += kStep, grad += kStep) {
    if (Vector::any_not_less(magnitude(in), maximum)) {
      add(in, grad, grad);
    }
  }
  combine<Vector::kLanes, kSize, kSize, kSize>(in, grad, count, grad, add);
}

template <typename Vector>
void add_at_maxima_vectors(const void* in, FloatType type, const RowGroups& shape,
                           const float* maxima, const float* amounts, void* grad) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    constexpr int64_t kSize = element_size(kType);
    for_each_group(shape, [&](int64_t /*row*/, int64_t index, int64_t begin, int64_t count) {
      if (maxima[index] > 0) {
        add_at_maximum<Vector, kType>(static_cast<const uint8_t*>(in) + begin * kSize, count,
                                      maxima[index], amounts[index],
                                      static_cast<uint8_t*>(grad) + begin * kSize);
      }
    });
  });
}

}  // namespace blockptq::kernels
