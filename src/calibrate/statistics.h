// Sums over calibration tokens that the algorithms work from (quant/algorithms/algorithm.h).
//
// Shapes: T tokens, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "quant/algorithms/algorithm.h"

namespace blockptq {

/// The sizes of the groups of consecutive features whose correlations are summed up: all of them
/// together up to 8192, groups of 2048 beyond. Memory grows with the square of a group and time
/// with its cube, and neighbours (the values of a head, of the next ones) have most in common.
std::vector<int64_t> feature_groups(int64_t features);

/// Of H, or of C.
int64_t statistics_bytes(int64_t features);

class StatisticsSum {
 public:
  /// Counts tokens only.
  StatisticsSum() = default;
  /// Of both matrices, of one or of none.
  StatisticsSum(bool hessian, bool cross) : hessian_(hessian), cross_(cross) {}

  /// float_TI: the input of the float model, needed for C only; quant_TI: that of the quantized
  /// model; weight_T: fp32 router weights, undefined: 1. Tokens of weight 0 count for nothing.
  void add(const at::Tensor& float_TI, const at::Tensor& quant_TI, const at::Tensor& weight_T);

  int64_t tokens() const { return sums_.empty() ? 0 : sums_.front().tokens; }
  /// The sums, C as far as chance does not account for it, to be consumed. Were the differences of
  /// the two models' inputs independent of the inputs, of either sign, then C would have the
  /// squared norm n = sum_t g_t^4 |x - x'|^2 |x'|^2 on average; C (1 - n / |C|^2), not below 0, is
  /// the estimate of James and Stein (1961, positive part). Of few tokens, or where little but the
  /// rounding of activations differs, a correction for C would fit noise.
  GroupedStatistics take();

 private:
  bool hessian_ = false;
  bool cross_ = false;
  GroupedStatistics sums_;      ///< none before the first tokens
  std::vector<double> chance_;  ///< n of each group
};

}  // namespace blockptq
