#include "quant/algorithms/shrink.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "base/error.h"

namespace blockptq {
namespace {

at::Tensor add_scaled(at::Tensor&& sums_II, const at::Tensor& more_II, double factor) {
  if (!more_II.defined()) {
    return std::move(sums_II);
  }
  return sums_II.defined() ? std::move(sums_II.add_(more_II, factor)) : more_II * factor;
}

}  // namespace

InputStatistics shrink(InputStatistics&& expert, const InputStatistics& block, double strength) {
  BPTQ_ASSERT(block.tokens > 0 && block.hessian_II.defined() && strength >= 0);
  const double tokens = strength * static_cast<double>(block.hessian_II.size(0));
  const double factor = tokens / static_cast<double>(block.tokens);
  return {add_scaled(std::move(expert.hessian_II), block.hessian_II, factor),
          add_scaled(std::move(expert.cross_II), block.cross_II, factor),
          expert.tokens + std::llround(tokens)};
}

}  // namespace blockptq
