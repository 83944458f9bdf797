// Fake quantization: activations and cache points are quantized and dequantized as the recipe says,
// in the floating-point type of the tensors. Weights come quantized and dequantized already
// (models/piece.h). Differentiable where a factor wants a gradient.
#pragma once

#include <map>
#include <string>

#include "exec/exec.h"
#include "quant/recipe.h"

namespace blockptq {

class FakeQuantExec final : public Exec {
 public:
  /// Factors on dynamic maxima by the name of the weight behind the site: fp32, one element each.
  using Factors = std::map<std::string, at::Tensor, std::less<>>;

  explicit FakeQuantExec(Recipe recipe, Factors factors = {});

  Activation input(const Site& site, const at::Tensor& x_TI) const override;
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override;
  at::Tensor point(const Site& site, const at::Tensor& x) const override;

 private:
  at::Tensor quantize(const Site& site, const at::Tensor& x, int bits, int64_t group) const;

  Recipe recipe_;
  Factors factors_;
};

}  // namespace blockptq
