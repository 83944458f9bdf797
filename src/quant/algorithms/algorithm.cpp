#include "quant/algorithms/algorithm.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"

namespace blockptq {
namespace {

/// A sum is NaN or infinite when a term is, and needs no memory.
bool is_finite(const at::Tensor& tensor) {
  return std::isfinite(tensor.sum(at::kDouble).item<double>());
}

void check_sums(const at::Tensor& sums_II, int64_t features) {
  BPTQ_ASSERT(sums_II.defined() && sums_II.scalar_type() == at::kFloat && sums_II.dim() == 2 &&
              sums_II.size(0) == features && sums_II.size(1) == features);
  check(is_finite(sums_II),
        "input statistics of {} features: expected finite values, found NaN or infinity", features);
}

}  // namespace

void check_weight(const at::Tensor& w_OI) {
  BPTQ_ASSERT(w_OI.dim() == 2 && w_OI.is_floating_point());
  check(is_finite(w_OI), "weight of shape [{}, {}]: expected finite values, found NaN or infinity",
        w_OI.size(0), w_OI.size(1));
}

void check_statistics(const InputStatistics& input, int64_t features) {
  check_sums(input.hessian_II, features);
  if (input.cross_II.defined()) {
    check_sums(input.cross_II, features);
  }
  const auto smallest = input.hessian_II.diagonal().min().item<double>();
  check(smallest >= 0, "input statistics: expected second moments >= 0, found {}", smallest);
}

at::Tensor quadratic_form(const at::Tensor& e_OI, const at::Tensor& hessian_II) {
  return at::matmul(e_OI, hessian_II).mul_(e_OI).sum(1);
}

}  // namespace blockptq
