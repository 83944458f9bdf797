#include "quant/target_weight.h"

#include <ATen/ATen.h>

namespace blockptq {

TargetWeight TargetWeight::part(int64_t row, int64_t count) const {
  FoldedFactors factors = folded_;
  if (factors.rows_O.defined()) {
    factors.rows_O = factors.rows_O.narrow(0, row, count);
  }
  return {value_OI_.narrow(0, row, count), factors};
}

at::Tensor TargetWeight::whole() const {
  return fold(value_OI_.to(at::kFloat), folded_);
}

}  // namespace blockptq
