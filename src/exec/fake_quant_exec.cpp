#include "exec/fake_quant_exec.h"

#include <ATen/ATen.h>

#include <utility>

#include "quant/int_linear.h"

namespace blockptq {
namespace {

at::Tensor product(const at::Tensor& x_TI, const Weight& weight) {
  return weight.integers ? dequantized_linear(x_TI, *weight.integers)
                         : at::linear(x_TI, weight.value);
}

}  // namespace

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
    return product(prepared ? x_TI.unquantized : x_TI.value, weight);
  }
  return product(prepared ? x_TI.value : rounded(site, x_TI.value, bits, 0), weight);
}

}  // namespace blockptq
