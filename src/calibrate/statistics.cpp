#include "calibrate/statistics.h"

#include <ATen/ATen.h>

namespace blockptq {
namespace {

/// sum += a^T b.
void accumulate(at::Tensor& sum_II, const at::Tensor& a_TI, const at::Tensor& b_TI) {
  if (!sum_II.defined()) {
    sum_II = at::zeros({a_TI.size(1), b_TI.size(1)}, a_TI.options());
  }
  sum_II.addmm_(a_TI.t(), b_TI);
}

}  // namespace

void StatisticsSum::add(const at::Tensor& float_TI, const at::Tensor& quant_TI,
                        const at::Tensor& weight_T) {
  at::Tensor x = quant_TI.to(at::kFloat);
  at::Tensor difference = float_TI.to(at::kFloat) - x;
  sum_.tokens += weight_T.defined() ? weight_T.count_nonzero().item<int64_t>() : x.size(0);
  if (weight_T.defined()) {
    x = x * weight_T.unsqueeze(1);
    difference.mul_(weight_T.unsqueeze(1));
  }
  if (hessian_) {
    accumulate(sum_.hessian_II, x, x);
  }
  if (cross_) {
    accumulate(sum_.cross_II, difference, x);
  }
}

}  // namespace blockptq
