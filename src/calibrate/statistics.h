// Sums over calibration tokens that the algorithms work from (quant/algorithms/algorithm.h).
//
// Shapes: T tokens, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "quant/algorithms/algorithm.h"

namespace blockptq {

class StatisticsSum {
 public:
  StatisticsSum() = default;
  /// Of one of the matrices, or of none.
  StatisticsSum(bool hessian, bool cross) : hessian_(hessian), cross_(cross) {}

  /// float_TI: the input of the float model; quant_TI: that of the quantized model; weight_T: fp32
  /// router weights, undefined: 1. Tokens of weight 0 count for nothing.
  void add(const at::Tensor& float_TI, const at::Tensor& quant_TI, const at::Tensor& weight_T);

  const InputStatistics& result() const { return sum_; }
  /// The result, to be consumed.
  InputStatistics take() { return std::move(sum_); }

 private:
  bool hessian_ = true;
  bool cross_ = true;
  InputStatistics sum_;
};

}  // namespace blockptq
