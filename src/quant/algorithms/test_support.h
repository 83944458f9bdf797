// What the tests of algorithms share.
//
// Shapes: O output channels, I input features, T tokens.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "quant/algorithms/algorithm.h"
#include "quant/qtensor.h"

namespace blockptq {

/// Tokens [T, I] of correlated features of unequal size: I / 4 factors and a little noise.
inline at::Tensor correlated_inputs(int64_t tokens, int64_t features, uint64_t seed) {
  at::manual_seed(1000);  // the mixing is the same for every seed
  const at::Tensor mixing_KI = at::randn({(features + 3) / 4, features});
  const at::Tensor size_I = at::randn({features}).mul_(0.7).exp_();
  at::manual_seed(seed);
  const at::Tensor latent_TK = at::randn({tokens, mixing_KI.size(0)});
  return (at::matmul(latent_TK, mixing_KI) + at::randn({tokens, features})) * size_I;
}

/// Of inputs that the quantized model sees as the float model does.
inline InputStatistics statistics_of(const at::Tensor& x_TI) {
  return {at::matmul(x_TI.t(), x_TI), {}, x_TI.size(0)};
}

/// e H e^T of every channel, in fp64.
inline at::Tensor losses(const at::Tensor& w_OI, const QTensor& q, const at::Tensor& hessian_II) {
  const at::Tensor e_OI =
      w_OI.to(at::kDouble) - q.codes_OI.to(at::kDouble) * q.scales_O.to(at::kDouble).unsqueeze(1);
  return (at::matmul(e_OI, hessian_II.to(at::kDouble)) * e_OI).sum(1);
}

inline double loss(const at::Tensor& w_OI, const QTensor& q, const at::Tensor& hessian_II) {
  return losses(w_OI, q, hessian_II).sum().item<double>();
}

}  // namespace blockptq
