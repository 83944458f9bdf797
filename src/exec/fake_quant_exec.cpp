#include "exec/fake_quant_exec.h"

#include <ATen/ATen.h>

#include <utility>

namespace blockptq {

FakeQuantExec::FakeQuantExec(Recipe recipe, Factors factors)
    : QuantExec(std::move(recipe), std::move(factors)) {}

Activation FakeQuantExec::input(const Site& site, const at::Tensor& x_TI) const {
  const int bits = input_bits(site);
  if (bits == kFloatBits) {
    return {x_TI};
  }
  return {.value = rounded(site, x_TI, bits, 0), .unquantized = x_TI};
}

at::Tensor FakeQuantExec::linear(const Weight& weight, const Activation& x_TI) const {
  const Site site = Site::before(weight);
  const int bits = input_bits(site);
  const bool prepared = x_TI.unquantized.defined();
  if (bits == kFloatBits) {
    return at::linear(prepared ? x_TI.unquantized : x_TI.value, weight.value);
  }
  return at::linear(prepared ? x_TI.value : rounded(site, x_TI.value, bits, 0), weight.value);
}

}  // namespace blockptq
