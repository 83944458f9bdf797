#include "calibrate/shared_work.h"

#include <ATen/ATen.h>

#include <utility>

#include "quant/algorithms/slabs.h"

namespace blockptq {
namespace {

/// Some channels of one of several weights.
struct Share {
  size_t weight = 0;
  Slab slab;
};

/// Whole slabs, as a rank alone takes them: products of other shapes may round differently.
std::vector<Share> shares_of(const std::vector<TargetWeight>& weights) {
  std::vector<Share> shares;
  for (size_t i = 0; i < weights.size(); ++i) {
    for_slabs(weights[i].value(), /*scales=*/1, [&](const Slab& slab) {
      shares.push_back({i, slab});
    });
  }
  return shares;
}

}  // namespace

void broadcast_tensor(Ranks& ranks, const at::Tensor& tensor, int root) {
  if (!ranks.shared()) {
    return;
  }
  const bool sends = ranks.rank() == root;
  const bool direct = tensor.is_cpu() && tensor.is_contiguous();
  at::Tensor host = tensor;
  if (!direct) {
    host = sends ? tensor.cpu().contiguous()
                 : at::empty(tensor.sizes(), tensor.options().device(at::kCPU));
  }
  broadcast(ranks, Channel::states, host.mutable_data_ptr(), static_cast<int64_t>(host.nbytes()),
            root);
  if (!sends && !direct) {
    tensor.copy_(host);
  }
}

at::Tensor shared_vector(Ranks& ranks, const at::Tensor& vector, at::Device device) {
  int64_t size = vector.defined() ? vector.size(0) : 0;
  broadcast(ranks, Channel::states, &size, sizeof(size), 0);
  if (size == 0) {
    return {};
  }
  at::Tensor shared =
      vector.defined() ? vector : at::empty({size}, at::TensorOptions(at::kFloat).device(device));
  broadcast_tensor(ranks, shared, 0);
  return shared;
}

std::vector<double> shared_sums(
    Ranks& ranks, int64_t items, size_t width,
    const std::function<std::vector<double>(int64_t index)>& numbers_of) {
  std::vector<std::vector<double>> numbers(static_cast<size_t>(items), std::vector<double>(width));
  for (int64_t i = 0; i < items; ++i) {
    if (ranks.does(i)) {
      numbers[i] = numbers_of(i);
    }
  }
  std::vector<double> sums(width);
  for (int64_t i = 0; i < items; ++i) {
    broadcast(ranks, Channel::states, numbers[i].data(),
              static_cast<int64_t>(width * sizeof(double)), static_cast<int>(i % ranks.size()));
    for (size_t k = 0; k < width; ++k) {
      sums[k] += numbers[i][k];
    }
  }
  return sums;
}

SharedStatistics::SharedStatistics(Ranks& ranks, int64_t first, bool cross)
    : ranks_(ranks),
      hessian_rank_(static_cast<int>(first % ranks.size())),
      cross_rank_(static_cast<int>((first + 1) % ranks.size())),
      cross_(cross),
      sum_(ranks.rank() == hessian_rank_, cross && ranks.rank() == cross_rank_) {}

GroupedStatistics SharedStatistics::take(int64_t features, at::Device device) {
  const std::vector<int64_t> groups = feature_groups(features);
  int64_t tokens = sum_.tokens();
  broadcast(ranks_, Channel::states, &tokens, sizeof(tokens), hessian_rank_);
  GroupedStatistics result = sum_.take();
  result.resize(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const auto share = [&](at::Tensor& sum_JJ, int root) {
      if (!sum_JJ.defined()) {
        sum_JJ = at::empty({groups[g], groups[g]}, at::TensorOptions(at::kFloat).device(device));
      }
      broadcast_tensor(ranks_, sum_JJ, root);
    };
    result[g].tokens = tokens;
    share(result[g].hessian_II, hessian_rank_);
    if (cross_) {
      share(result[g].cross_II, cross_rank_);
    }
  }
  return result;
}

std::vector<QTensor> choose_together(Ranks& ranks, const Algorithm& algorithm,
                                     const std::vector<TargetWeight>& weights, int bits,
                                     GroupedStatistics input) {
  if (!ranks.shared()) {
    return algorithm(weights, bits, std::move(input));
  }
  const std::vector<Share> shares = shares_of(weights);
  std::vector<TargetWeight> own;
  for (size_t s = 0; s < shares.size(); ++s) {
    const auto& [weight, slab] = shares[s];
    if (ranks.does(static_cast<int64_t>(s))) {
      own.push_back(weights[weight].part(slab.row, slab.count));
    }
  }
  const auto chosen = own.empty() ? std::vector<QTensor>() : algorithm(own, bits, std::move(input));
  std::vector<QTensor> whole;
  for (const TargetWeight& weight : weights) {
    const at::Tensor& value_OI = weight.value();
    whole.push_back({at::empty(value_OI.sizes(), value_OI.options().dtype(at::kChar)),
                     at::empty({value_OI.size(0)}, value_OI.options().dtype(at::kFloat)), bits});
  }
  for (size_t s = 0; s < shares.size(); ++s) {
    const auto& [weight, slab] = shares[s];
    const at::Tensor codes_RI = slab(whole[weight].codes_OI);
    const at::Tensor scales_R = slab(whole[weight].scales_O);
    const int owner = static_cast<int>(s) % ranks.size();
    if (ranks.rank() == owner) {
      const QTensor& part = chosen[s / static_cast<size_t>(ranks.size())];
      codes_RI.copy_(part.codes_OI);
      scales_R.copy_(part.scales_O);
    }
    broadcast_tensor(ranks, codes_RI, owner);
    broadcast_tensor(ranks, scales_R, owner);
  }
  return whole;
}

}  // namespace blockptq
