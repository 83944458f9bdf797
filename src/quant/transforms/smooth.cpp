#include "quant/transforms/smooth.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace blockptq {

void FeatureMagnitude::add(const at::Tensor& rows_RI) {
  const at::Tensor x = rows_RI.to(at::kFloat);
  const at::Tensor max_R1 = x.abs().amax(-1, /*keepdim=*/true);
  const at::Tensor squares_I = (x / max_R1.clamp_min(1e-30)).square().sum(0);
  squares_I_ = squares_I_.defined() ? squares_I_ + squares_I : squares_I;
  rows_ += x.size(0);
}

at::Tensor FeatureMagnitude::value() const {
  return squares_I_.defined() ? (squares_I_ / static_cast<double>(rows_)).sqrt() : squares_I_;
}

at::Tensor smooth_factors(const at::Tensor& x_I, const at::Tensor& w_I, double alpha) {
  BPTQ_ASSERT(alpha >= 0 && alpha <= 1 && x_I.sizes() == w_I.sizes());
  const at::Tensor factors_I = x_I.pow(alpha) / w_I.pow(1 - alpha);
  const at::Tensor zero_I = at::logical_or(x_I == 0, w_I == 0);
  return at::where(zero_I, at::ones_like(factors_I), factors_I);
}

at::Tensor nearest_power_of_two(const at::Tensor& factors) {
  const auto [mantissa, exponent] = at::frexp(factors);  // mantissa in [1/2, 1)
  const at::Tensor above = factors / mantissa;           // exact: 2^exponent
  return at::where(mantissa.square() < 0.5, above * 0.5, above);
}

at::Tensor fold_into_columns(const at::Tensor& w_OI, const at::Tensor& factors_I) {
  return (w_OI.to(at::kFloat) * factors_I).to(w_OI.scalar_type());
}

at::Tensor fold_into_rows(const at::Tensor& w, const at::Tensor& factors_O) {
  const at::Tensor divisors = w.dim() == 2 ? factors_O.unsqueeze(1) : factors_O;
  return (w.to(at::kFloat) / divisors).to(w.scalar_type());
}

}  // namespace blockptq
