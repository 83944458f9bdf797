#include "quant/algorithms/hessian_factor.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"

namespace blockptq {

at::Tensor HessianFactor::to_order(const at::Tensor& x) const {
  return x.index_select(-1, order_I);
}

at::Tensor HessianFactor::from_order(const at::Tensor& x) const {
  return x.index_select(-1, order_I.argsort());
}

HessianFactor factor_hessian(InputStatistics input, const FactorOptions& options) {
  const at::Tensor diagonal_I = input.hessian_II.diagonal().clone();
  const int64_t features = diagonal_I.size(0);
  HessianFactor factor;
  factor.order_I = options.act_order
                       ? diagonal_I.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/false)
                       : at::arange(features, diagonal_I.options().dtype(at::kLong)).flip(0);
  at::Tensor rows_II = input.hessian_II.index_select(0, factor.order_I);
  input.hessian_II.reset();
  factor.hessian_II = rows_II.index_select(1, factor.order_I);
  rows_II.reset();
  const auto mean = diagonal_I.mean().item<double>();
  if (mean == 0) {
    factor.hessian_II.fill_diagonal_(1);
    factor.lower_II = factor.hessian_II;
    return factor;
  }
  const double tokens = static_cast<double>(std::max<int64_t>(1, input.tokens));
  double wanted = options.damping + options.token_damping * static_cast<double>(features) / tokens;
  at::Tensor error;
  do {
    check(wanted < 1e3, "Hessian of {} features: not positive definite even with damping {}",
          features, factor.damping);
    factor.hessian_II.diagonal().add_((wanted - factor.damping) * mean);
    factor.damping = wanted;
    factor.lower_II.reset();
    std::tie(factor.lower_II, error) = at::linalg_cholesky_ex(factor.hessian_II);
    wanted = std::max(4 * wanted, 1e-3);
  } while (error.item<int>() != 0);
  return factor;
}

at::Tensor corrected_target(const at::Tensor& w_OI, at::Tensor correction_OI,
                            const HessianFactor& factor) {
  if (!correction_OI.defined()) {
    return factor.to_order(w_OI);
  }
  // Not cholesky_solve, which copies the factor.
  at::Tensor change_IO = factor.to_order(correction_OI).t();
  correction_OI.reset();
  change_IO = at::linalg_solve_triangular(factor.lower_II, change_IO, /*upper=*/false);
  change_IO = at::linalg_solve_triangular(factor.lower_II.t(), change_IO, /*upper=*/true);
  return change_IO.t().contiguous().add_(factor.to_order(w_OI));
}

}  // namespace blockptq
