// What implementations of quantized arithmetic share: the recipe, learned factors, cache points.
#pragma once

#include <map>
#include <string>

#include "exec/exec.h"
#include "quant/recipe.h"

namespace blockptq {

class QuantExec : public Exec {
 public:
  /// Factors on dynamic maxima by the name of the weight behind the site: fp32, one element each.
  using Factors = std::map<std::string, at::Tensor, std::less<>>;

  QuantExec(Recipe recipe, Factors factors);

  /// Quantized and dequantized as the recipe says: what is compared and attended to is the same
  /// whether its products are of integers or of their values.
  at::Tensor point(const Site& site, const at::Tensor& x) const override;

 protected:
  /// Bits of the activation in front of the linear that names the site.
  int input_bits(const Site& site) const;
  /// nullptr: 1.
  const at::Tensor* factor(const Site& site) const;
  /// Quantized and dequantized; differentiable where x or the factor wants a gradient.
  at::Tensor rounded(const Site& site, const at::Tensor& x, int bits, int64_t group) const;

 private:
  Recipe recipe_;
  Factors factors_;
};

}  // namespace blockptq
