#include "calibrate/statistics.h"

#include <ATen/ATen.h>

#include <algorithm>

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

std::vector<int64_t> feature_groups(int64_t features) {
  constexpr int64_t kTogether = 8192;
  constexpr int64_t kGroup = 2048;
  std::vector<int64_t> groups;
  for (int64_t left = features; left > 0; left -= groups.back()) {
    groups.push_back(features <= kTogether ? features : std::min(left, kGroup));
  }
  return groups;
}

int64_t statistics_bytes(int64_t features) {
  int64_t elements = 0;
  for (const int64_t group : feature_groups(features)) {
    elements += group * group;
  }
  return elements * static_cast<int64_t>(sizeof(float));
}

void StatisticsSum::add(const at::Tensor& float_TI, const at::Tensor& quant_TI,
                        const at::Tensor& weight_T) {
  at::Tensor x = quant_TI.to(at::kFloat);
  at::Tensor difference = cross_ ? float_TI.to(at::kFloat) - x : at::Tensor();
  const int64_t tokens = weight_T.defined() ? weight_T.count_nonzero().item<int64_t>() : x.size(0);
  if (weight_T.defined()) {
    x = x * weight_T.unsqueeze(1);
    if (cross_) {
      difference.mul_(weight_T.unsqueeze(1));
    }
  }
  const std::vector<int64_t> sizes = feature_groups(x.size(1));
  sums_.resize(sizes.size());
  chance_.resize(sizes.size());
  const auto xs_TJ = x.split_with_sizes(sizes, 1);
  const auto differences_TJ =
      cross_ ? difference.split_with_sizes(sizes, 1) : std::vector<at::Tensor>();
  for (size_t g = 0; g < sizes.size(); ++g) {
    sums_[g].tokens += tokens;
    if (hessian_) {
      accumulate(sums_[g].hessian_II, xs_TJ[g], xs_TJ[g]);
    }
    if (cross_) {
      accumulate(sums_[g].cross_II, differences_TJ[g], xs_TJ[g]);
      chance_[g] += (differences_TJ[g].square().sum(1) * xs_TJ[g].square().sum(1))
                        .sum(at::kDouble)
                        .item<double>();
    }
  }
}

GroupedStatistics StatisticsSum::take() {
  for (size_t g = 0; g < sums_.size(); ++g) {
    at::Tensor& cross_II = sums_[g].cross_II;
    if (cross_II.defined()) {
      const auto norm = cross_II.norm().item<double>();
      const double kept = norm > 0 ? 1 - chance_[g] / (norm * norm) : 0;
      cross_II.mul_(std::max(kept, 0.0));
    }
  }
  return std::move(sums_);
}

}  // namespace blockptq
