// A unit that all ranks make together: passes of sequences, sums over what they see, codes of
// channels. Each piece of work is done by one rank as a rank alone would do it, so that the outcome
// is the same to the bit, whatever the number of ranks.
//
// Shapes: T tokens, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "base/ranks.h"
#include "calibrate/statistics.h"
#include "quant/algorithms/algorithm.h"

namespace blockptq {

/// The values of `tensor` on `root` come to all.
void broadcast_tensor(Ranks& ranks, const at::Tensor& tensor, int root);

/// `vector`, fp32 [F] or undefined, as rank 0 has it; on `device`.
at::Tensor shared_vector(Ranks& ranks, const at::Tensor& vector, at::Device device);

/// The sums of the vectors of `width` numbers that numbers_of(i) gives on the rank that does item i
/// of `items`, in the order of the items.
std::vector<double> shared_sums(
    Ranks& ranks, int64_t items, size_t width,
    const std::function<std::vector<double>(int64_t index)>& numbers_of);

/// Sums over what enters a linear (StatisticsSum): H by one rank, C by the next.
class SharedStatistics {
 public:
  /// first: the rank that sums H up, modulo their number.
  SharedStatistics(Ranks& ranks, int64_t first, bool cross);

  bool sums_cross(int rank) const { return cross_ && rank == cross_rank_; }
  /// Whether `rank` sums anything up.
  bool sums(int rank) const { return rank == hessian_rank_ || sums_cross(rank); }
  /// On a rank that does; as StatisticsSum has it.
  void add(const at::Tensor& float_TI, const at::Tensor& quant_TI, const at::Tensor& weight_T) {
    sum_.add(float_TI, quant_TI, weight_T);
  }
  /// Of all tokens, on every rank and `device`, to be consumed.
  GroupedStatistics take(int64_t features, at::Device device);

 private:
  Ranks& ranks_;
  int hessian_rank_;
  int cross_rank_;
  bool cross_;
  StatisticsSum sum_;
};

/// What `algorithm` makes of `weights`: every rank chooses the codes of some slabs of channels
/// (quant/algorithms/slabs.h). The ranks must have devices of one kind.
std::vector<QTensor> choose_together(Ranks& ranks, const Algorithm& algorithm,
                                     const std::vector<TargetWeight>& weights, int bits,
                                     GroupedStatistics input);

}  // namespace blockptq
