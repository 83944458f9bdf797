#include "nn/mlp.h"

namespace blockptq::nn {

at::Tensor Mlp::forward(const Exec& exec, const at::Tensor& x_TD) const {
  const Activation x = exec.input({SiteKind::linear_input, "gate_up_proj"}, x_TD);
  const at::Tensor hidden_TI = at::silu(exec.linear(gate, x)).mul_(exec.linear(up, x));
  return exec.linear(down, exec.input({SiteKind::linear_input, "down_proj"}, hidden_TI));
}

}  // namespace blockptq::nn
