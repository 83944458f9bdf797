#include "exec/fake_quant_exec.h"

#include <ATen/ATen.h>

#include <utility>

namespace blockptq {

FakeQuantExec::FakeQuantExec(Recipe recipe, Factors factors)
    : QuantExec(std::move(recipe), std::move(factors)) {}

Activation FakeQuantExec::input(const Site& site, const at::Tensor& x_TI) const {
  const int bits = input_bits(site);
  return {.value = x_TI,
          .rounded = bits == kFloatBits ? at::Tensor() : rounded(site, x_TI, bits, 0)};
}

at::Tensor FakeQuantExec::linear(const Weight& weight, const Activation& x_TI) const {
  const Site site = Site::before(weight);
  const int bits = input_bits(site);
  if (bits == kFloatBits) {
    return at::linear(x_TI.value, weight.value);
  }
  const bool ready = x_TI.rounded.defined();
  return at::linear(ready ? x_TI.rounded : rounded(site, x_TI.value, bits, 0), weight.value);
}

}  // namespace blockptq
