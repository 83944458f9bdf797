#include <ATen/ATen.h>

#include "exec/exec.h"
namespace blockptq {

Weight Weight::rows(int64_t begin, int64_t end) const {
  return {name, role, value.slice(0, begin, end)};
}

Activation FloatExec::input(const Site& /*site*/, const at::Tensor& x_TI) const {
  return {x_TI};
}

at::Tensor FloatExec::linear(const Weight& weight, const Activation& x_TI) const {
  return at::linear(x_TI.value, weight.value);
}

at::Tensor FloatExec::point(const Site& /*site*/, const at::Tensor& x) const {
  return x;
}

}  // namespace blockptq
