#include "quant/algorithms/shrink.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace blockptq {
namespace {

/// A part of the rows at a time: what is added may be of another type.
at::Tensor add_scaled(at::Tensor sums_II, const at::Tensor& more_II, double factor) {
  constexpr int64_t kRows = 512;
  if (more_II.defined() && !sums_II.defined()) {
    sums_II = at::zeros(more_II.sizes(), more_II.options().dtype(at::kFloat));
  }
  for (int64_t row = 0; more_II.defined() && row < more_II.size(0); row += kRows) {
    const int64_t count = std::min(kRows, more_II.size(0) - row);
    sums_II.narrow(0, row, count).add_(more_II.narrow(0, row, count).to(at::kFloat), factor);
  }
  return sums_II;
}

}  // namespace

GroupedStatistics shrink(GroupedStatistics&& expert, const GroupedStatistics& block,
                         double strength) {
  BPTQ_ASSERT(strength >= 0);
  GroupedStatistics shrunk = std::move(expert);
  shrunk.resize(block.size());  // of no tokens: no sums
  int64_t features = 0;
  for (const InputStatistics& group : block) {
    BPTQ_ASSERT(group.tokens > 0 && group.hessian_II.defined());
    features += group.hessian_II.size(0);
  }
  const double tokens = strength * static_cast<double>(features);
  for (size_t g = 0; g < block.size(); ++g) {
    const double factor = tokens / static_cast<double>(block[g].tokens);
    shrunk[g] = {add_scaled(std::move(shrunk[g].hessian_II), block[g].hessian_II, factor),
                 add_scaled(std::move(shrunk[g].cross_II), block[g].cross_II, factor),
                 shrunk[g].tokens + std::llround(tokens)};
  }
  return shrunk;
}

}  // namespace blockptq
