// Integer execution: what a server computes from a deployed checkpoint. In front of a weight that
// is held as integers (models/piece.h) the activation becomes integers too, per token, and their
// product is exact; other linears are in floating point. Cache points as in fake quantization.
// Without gradients. With value_linear as product it is the twin to compare with: fake quantization
// whose products are rounded once.
#pragma once

#include "exec/quant_exec.h"

namespace blockptq {

class IntegerExec final : public QuantExec {
 public:
  using Product = at::Tensor (*)(const QActivation& x_TI, const IntWeight& w_OI,
                                 at::ScalarType type);

  /// `recipe`: activation bits of the weights that are held as integers, and the cache.
  explicit IntegerExec(Recipe recipe, Factors factors = {}, Product product = int_linear);

  Activation input(const Site& site, const at::Tensor& x_TI) const override;
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override;

 private:
  QActivation integers(const Site& site, const at::Tensor& x_TI, int bits) const;

  Product product_;
};

}  // namespace blockptq
