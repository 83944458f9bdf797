#include "quant/transforms/smooth.h"

#include <ATen/ATen.h>

namespace blockptq {

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

FoldedFactors combined(const FoldedFactors& a, const FoldedFactors& b) {
  const auto product = [](const at::Tensor& x, const at::Tensor& y) {
    return x.defined() && y.defined() ? x * y : x.defined() ? x : y;
  };
  return {product(a.rows_O, b.rows_O), product(a.columns_I, b.columns_I)};
}

at::Tensor fold(at::Tensor w_OI, const FoldedFactors& factors) {
  if (factors.rows_O.defined()) {
    w_OI = fold_into_rows(w_OI, factors.rows_O);
  }
  return factors.columns_I.defined() ? fold_into_columns(w_OI, factors.columns_I) : w_OI;
}

}  // namespace blockptq
