#include "exec/integer_exec.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"
#include "quant/grid.h"

namespace blockptq {

IntegerExec::IntegerExec(Recipe recipe, Factors factors, Product product)
    : QuantExec(std::move(recipe), std::move(factors)), product_(product) {}

QActivation IntegerExec::integers(const Site& site, const at::Tensor& x_TI, int bits) const {
  const at::Tensor* alpha = factor(site);
  return quantize_activation(x_TI, bits, 0, alpha == nullptr ? 1 : alpha->item<double>());
}

Activation IntegerExec::input(const Site& site, const at::Tensor& x_TI) const {
  Activation result{.value = x_TI};
  if (const int bits = input_bits(site); bits != kFloatBits) {
    result.integers = integers(site, x_TI, bits);
  }
  return result;
}

at::Tensor IntegerExec::linear(const Weight& weight, const Activation& x_TI) const {
  if (!weight.integers) {
    return at::linear(x_TI.value, weight.value);
  }
  const at::ScalarType type = x_TI.value.scalar_type();
  if (x_TI.integers) {
    return product_(*x_TI.integers, *weight.integers, type);
  }
  const Site site = Site::before(weight);
  const int bits = input_bits(site);
  BPTQ_ASSERT(bits != kFloatBits);
  return product_(integers(site, x_TI.value, bits), *weight.integers, type);
}

}  // namespace blockptq
