// The exponential function over the vectors of one instruction set.
#pragma once

namespace blockptq::kernels {

/// exp(x) for x <= 88, to about 1 ulp; results below 2^-126 are 0, NaN stays NaN.
///
/// x = n ln 2 + r, exp(x) = 2^n exp(r); polynomial and split of ln 2 from Cephes (expf).
template <typename Vector>
typename Vector::Floats exp_to_88(typename Vector::Floats x) {
  const auto constant = [](float value) { return Vector::broadcast(value); };
  const auto lowest = constant(-87.336544F);  // ln 2^-126
  const auto clamped = Vector::max(lowest, x);
  const auto n = Vector::round(Vector::multiply(clamped, constant(1.44269504F)));
  auto r = Vector::multiply_add(n, constant(-0.693359375F), clamped);
  r = Vector::multiply_add(n, constant(2.12194440e-4F), r);
  auto p = constant(1.9875691500e-4F);
  p = Vector::multiply_add(p, r, constant(1.3981999507e-3F));
  p = Vector::multiply_add(p, r, constant(8.3334519073e-3F));
  p = Vector::multiply_add(p, r, constant(4.1665795894e-2F));
  p = Vector::multiply_add(p, r, constant(1.6666665459e-1F));
  p = Vector::multiply_add(p, r, constant(5.0000001201e-1F));
  p = Vector::multiply_add(p, r, constant(1.0F));
  p = Vector::multiply_add(p, r, constant(1.0F));
  return Vector::zero_if_less(x, lowest, Vector::scale_by_power(p, n));
}

}  // namespace blockptq::kernels
