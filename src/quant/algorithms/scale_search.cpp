#include "quant/algorithms/scale_search.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "quant/algorithms/product.h"
#include "quant/algorithms/slabs.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

at::Tensor rounding_error(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O) {
  return w_OI - quantize_weight(w_OI, bits, scales_O).dequantize(at::kFloat);
}

at::Tensor shrink_factors(int64_t steps, double smallest, const at::TensorOptions& options) {
  return at::linspace(1, smallest, steps, options);
}

/// sum_i d_i e_i^2 of every factor and channel: [S, O].
at::Tensor diagonal_losses(const at::Tensor& w_OI, int bits, const at::Tensor& weights_I,
                           const at::Tensor& factors_S) {
  constexpr int64_t kElements = int64_t{1} << 18;  // stay in the cache from factor to factor
  const int64_t rows = std::max<int64_t>(1, kElements / std::max<int64_t>(1, w_OI.size(1)));
  at::Tensor losses_SO = at::empty({factors_S.size(0), w_OI.size(0)}, w_OI.options());
  for (int64_t row = 0; row < w_OI.size(0); row += rows) {
    const int64_t count = std::min(rows, w_OI.size(0) - row);
    const at::Tensor part_RI = w_OI.narrow(0, row, count);
    for (int64_t step = 0; step < factors_S.size(0); ++step) {
      const at::Tensor scales_R =
          weight_scales(part_RI, bits, factors_S[step].expand({count}).contiguous());
      losses_SO[step].narrow(0, row, count) =
          at::mv(rounding_error(part_RI, bits, scales_R).square_(), weights_I);
    }
  }
  return losses_SO;
}

}  // namespace

at::Tensor search_scales(const at::Tensor& w_OI, int bits, const at::Tensor& weights_I,
                         int64_t steps, double smallest) {
  const at::Tensor factors_S = shrink_factors(steps, smallest, w_OI.options());
  const at::Tensor losses_SO = diagonal_losses(w_OI, bits, weights_I, factors_S);
  return weight_scales(w_OI, bits, factors_S.index_select(0, losses_SO.argmin(0)));
}

namespace {

/// The scales of some channels; input: H as a factor of products.
at::Tensor best_scales(const at::Tensor& w_RI, int bits, const GroupedStatistics& input,
                       const at::Tensor& weights_I, const ScaleSearchOptions& options) {
  if (options.exact == 0) {
    return search_scales(w_RI, bits, weights_I, options.steps, options.smallest);
  }
  const at::Tensor factors_S = shrink_factors(options.steps, options.smallest, w_RI.options());
  const at::Tensor losses_SR = diagonal_losses(w_RI, bits, weights_I, factors_S);
  const auto [values, best_KR] = losses_SR.topk(std::min(options.exact, options.steps), /*dim=*/0,
                                                /*largest=*/false);
  const auto loss = [&](const at::Tensor& scales_R) {
    return quadratic_form(rounding_error(w_RI, bits, scales_R), input, options.products);
  };
  at::Tensor scales_R = weight_scales(w_RI, bits);
  at::Tensor least_R = loss(scales_R);
  for (const at::Tensor& step_R : best_KR.unbind()) {
    const at::Tensor tried_R = weight_scales(w_RI, bits, factors_S.index_select(0, step_R));
    const at::Tensor loss_R = loss(tried_R);
    scales_R = at::where(loss_R < least_R, tried_R, scales_R);
    least_R = at::minimum(loss_R, least_R);
  }
  return scales_R;
}

}  // namespace

QTensor scale_search(const TargetWeight& weight, int bits, const GroupedStatistics& input,
                     const ScaleSearchOptions& options) {
  check_weight(weight.value());
  check_statistics(input, weight.features());
  const at::Tensor weights_I = second_moments(input);
  GroupedStatistics factors = input;
  for (InputStatistics& group : factors) {
    group.hessian_II = as_factor(group.hessian_II, options.products);  // for many products
  }
  return quantize_slabs(weight, bits, [&](const at::Tensor& w_RI, const Slab& /*slab*/) {
    return best_scales(w_RI, bits, factors, weights_I, options);
  });
}

}  // namespace blockptq
