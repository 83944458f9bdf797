// What is to be rounded: a weight as it is stored (or the weight of a norm, [O]), with what
// smoothing folds into it. It is made in fp32 some channels at a time, so that no copy of a whole
// weight stands beside it.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "quant/transforms/smooth.h"

namespace blockptq {

class TargetWeight {
 public:
  /// value_OI: of any floating type.
  TargetWeight(at::Tensor value_OI, FoldedFactors folded = {})  // NOLINT(*-explicit-*)
      : value_OI_(std::move(value_OI)), folded_(std::move(folded)) {}

  int64_t channels() const { return value_OI_.size(0); }
  int64_t features() const { return value_OI_.size(1); }
  /// As it is stored.
  const at::Tensor& value() const { return value_OI_; }
  const FoldedFactors& folded() const { return folded_; }
  /// `count` channels from `row` on.
  TargetWeight part(int64_t row, int64_t count) const;
  /// With what is folded in: fp32, maybe in the weight's own memory.
  at::Tensor whole() const;
  /// Of a part.
  at::Tensor narrow(int64_t row, int64_t count) const { return part(row, count).whole(); }

 private:
  at::Tensor value_OI_;
  FoldedFactors folded_;
};

}  // namespace blockptq
