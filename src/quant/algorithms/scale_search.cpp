#include "quant/algorithms/scale_search.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
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

QTensor scale_search(const at::Tensor& w_OI, int bits, const GroupedStatistics& input,
                     const ScaleSearchOptions& options) {
  check_weight(w_OI);
  check_statistics(input, w_OI.size(1));
  const at::Tensor wide_OI = w_OI.to(at::kFloat);
  const at::Tensor weights_I = second_moments(input);
  if (options.exact == 0) {
    return quantize_weight(
        wide_OI, bits, search_scales(wide_OI, bits, weights_I, options.steps, options.smallest));
  }
  const at::Tensor factors_S = shrink_factors(options.steps, options.smallest, wide_OI.options());
  const at::Tensor losses_SO = diagonal_losses(wide_OI, bits, weights_I, factors_S);
  const auto [values, best_KO] = losses_SO.topk(std::min(options.exact, options.steps), /*dim=*/0,
                                                /*largest=*/false);
  at::Tensor scales_O = weight_scales(wide_OI, bits);
  at::Tensor least_O =
      quadratic_form(rounding_error(wide_OI, bits, scales_O), input, options.products);
  for (const at::Tensor& step_O : best_KO.unbind()) {
    const at::Tensor tried_O = weight_scales(wide_OI, bits, factors_S.index_select(0, step_O));
    const at::Tensor loss_O =
        quadratic_form(rounding_error(wide_OI, bits, tried_O), input, options.products);
    scales_O = at::where(loss_O < least_O, tried_O, scales_O);
    least_O = at::minimum(loss_O, least_O);
  }
  return quantize_weight(wide_OI, bits, scales_O);
}

}  // namespace blockptq
