#include "exec/record_exec.h"

namespace blockptq {

Activation RecordExec::input(const Site& site, const at::Tensor& x_TI) const {
  return inner_.input(site, x_TI);
}

at::Tensor RecordExec::linear(const Weight& weight, const Activation& x_TI) const {
  inputs_[weight.name] = x_TI.value;
  return inner_.linear(weight, x_TI);
}

at::Tensor RecordExec::point(const Site& site, const at::Tensor& x) const {
  return inner_.point(site, x);
}

}  // namespace blockptq
