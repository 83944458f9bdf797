// Gated MLP (SwiGLU, arXiv 2002.05202): down(silu(gate(x)) * up(x)). One routed expert, a shared
// expert or a dense MLP.
#pragma once

#include <ATen/core/Tensor.h>

#include "exec/exec.h"

namespace blockptq::nn {

struct Mlp {
  Weight gate;  ///< [I, D]
  Weight up;    ///< [I, D]
  Weight down;  ///< [D, I]

  /// x_TD (normalised) -> [T, D].
  at::Tensor forward(const Exec& exec, const at::Tensor& x_TD) const;
  /// What goes into `down`: [T, I].
  Activation hidden(const Exec& exec, const at::Tensor& x_TD) const;
};

/// silu(gate) * up; may overwrite gate_TI.
at::Tensor swiglu(at::Tensor gate_TI, const at::Tensor& up_TI);

}  // namespace blockptq::nn
