#include "quant/algorithms/algorithm.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "quant/algorithms/product.h"

namespace blockptq {
namespace {

/// A sum is NaN or infinite when a term is, and needs no memory (one in another type would).
bool is_finite(const at::Tensor& rows) {
  return rows.sum(-1).isfinite().all().item<bool>();
}

void check_sums(const at::Tensor& sums_II) {
  BPTQ_ASSERT(sums_II.defined() && sums_II.scalar_type() == at::kFloat && sums_II.dim() == 2 &&
              sums_II.size(0) == sums_II.size(1));
  check(is_finite(sums_II),
        "input statistics of {} features: expected finite values, found NaN or infinity",
        sums_II.size(0));
}

}  // namespace

void check_weight(const at::Tensor& w_OI) {
  BPTQ_ASSERT(w_OI.dim() == 2 && w_OI.is_floating_point());
  check(is_finite(w_OI), "weight of shape [{}, {}]: expected finite values, found NaN or infinity",
        w_OI.size(0), w_OI.size(1));
}

void check_statistics(const GroupedStatistics& input, int64_t features) {
  int64_t known = 0;
  for (const InputStatistics& group : input) {
    check_sums(group.hessian_II);
    known += group.hessian_II.size(0);
    if (group.cross_II.defined()) {
      check_sums(group.cross_II);
      BPTQ_ASSERT(group.cross_II.sizes() == group.hessian_II.sizes());
    }
    const auto smallest = group.hessian_II.diagonal().min().item<double>();
    check(smallest >= 0, "input statistics: expected second moments >= 0, found {}", smallest);
  }
  BPTQ_ASSERT(known == features);
}

at::Tensor second_moments(const GroupedStatistics& input) {
  std::vector<at::Tensor> diagonals;
  diagonals.reserve(input.size());
  for (const InputStatistics& group : input) {
    diagonals.push_back(group.hessian_II.diagonal());
  }
  return at::cat(diagonals);
}

std::vector<at::Tensor> split_features(const at::Tensor& x, const GroupedStatistics& input) {
  std::vector<int64_t> sizes;
  sizes.reserve(input.size());
  for (const InputStatistics& group : input) {
    sizes.push_back(group.hessian_II.size(0));
  }
  return x.split_with_sizes(sizes, -1);
}

at::Tensor quadratic_form(const at::Tensor& e_OI, const GroupedStatistics& input,
                          at::ScalarType products) {
  at::Tensor sum_O = at::zeros({e_OI.size(0)}, e_OI.options());
  const auto parts_OJ = split_features(e_OI, input);
  for (size_t g = 0; g < input.size(); ++g) {
    sum_O += product(parts_OJ[g], input[g].hessian_II, products).mul_(parts_OJ[g]).sum(1);
  }
  return sum_O;
}

}  // namespace blockptq
