#include "nn/mlp.h"

#include <ATen/ATen.h>

#include "kernels/swiglu.h"
#include "nn/fused.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::nn {

at::Tensor swiglu(at::Tensor gate_TI, const at::Tensor& up_TI) {
  if (!can_fuse(gate_TI) || up_TI.requires_grad()) {
    return at::silu(gate_TI) * up_TI;
  }
  const auto type = float_type(gate_TI.scalar_type());
  const int64_t bytes = kernels::element_size(type);
  void* gate = gate_TI.mutable_data_ptr();
  const void* up = up_TI.const_data_ptr();
  parallel_rows(gate_TI.numel(), 1, [&](int64_t begin, int64_t end) {
    kernels::swiglu(at_element(gate, begin, bytes), at_element(up, begin, bytes), type, end - begin,
                    at_element(gate, begin, bytes));
  });
  return gate_TI;
}

Activation Mlp::hidden(const Exec& exec, const at::Tensor& x_TD) const {
  const Activation x = exec.input(Site::before(gate), x_TD);
  return exec.input(Site::before(down), swiglu(exec.linear(gate, x), exec.linear(up, x)));
}

at::Tensor Mlp::forward(const Exec& exec, const at::Tensor& x_TD) const {
  return exec.linear(down, hidden(exec, x_TD));
}

}  // namespace blockptq::nn
