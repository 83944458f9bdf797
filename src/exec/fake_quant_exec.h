// Fake quantization: activations and cache points are quantized and dequantized as the recipe says,
// in the floating-point type of the tensors. Weights come quantized and dequantized already
// (models/piece.h), or as their integers, which are dequantized here. Differentiable where a factor
// wants a gradient and weights have values.
#pragma once

#include "exec/quant_exec.h"

namespace blockptq {

class FakeQuantExec final : public QuantExec {
 public:
  explicit FakeQuantExec(Recipe recipe, Factors factors = {});

  Activation input(const Site& site, const at::Tensor& x_TI) const override;
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override;
};

}  // namespace blockptq
