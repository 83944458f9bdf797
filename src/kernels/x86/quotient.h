// Rounded quotients without a division for almost every vector.
#pragma once

namespace blockptq::kernels {

/// A divisor and what stands in for it. Only where the magnitude of the rounded quotient is below
/// 512 or its clamp to such a range is all that counts.
template <typename Vector>
struct Divisor {
  typename Vector::Floats scale;
  typename Vector::Floats inverse;

  /// The inverse is NaN where it or its products would lose digits.
  explicit Divisor(float value)
      : scale(Vector::broadcast(value)),
        inverse(Vector::broadcast(value > 0x1p-100F && value < 0x1p100F ? 1 / value
                                                                        : __builtin_nanf(""))) {}
};

template <typename Vector>
struct Quotient {
  typename Vector::Floats value;    ///< x / scale, to 2 ulp
  typename Vector::Floats rounded;  ///< exactly what the IEEE quotient rounds to, half to even
  bool divided;                     ///< else all of it is finite
};

/// The product with the inverse is off by less than 2^-14; where it lies that close to the middle
/// of two integers, and where it is not finite, the vector is divided.
template <typename Vector>
[[gnu::always_inline]] inline Quotient<Vector> quotient(typename Vector::Floats x,
                                                        const Divisor<Vector>& divisor) {
  Quotient<Vector> result = {Vector::multiply(x, divisor.inverse), {}, false};
  result.rounded = Vector::round(result.value);
  const auto distance = Vector::magnitude(Vector::subtract(result.value, result.rounded));
  if (Vector::any_not_less(distance, Vector::broadcast(0.5F - 0x1p-14F))) [[unlikely]] {
    result.value = Vector::divide(x, divisor.scale);
    result.rounded = Vector::round(result.value);
    result.divided = true;
  }
  return result;
}

}  // namespace blockptq::kernels
