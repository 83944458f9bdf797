#include "exec/fake_quant_exec.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"
#include "quant/grid.h"
#include "quant/straight_through.h"

namespace blockptq {

FakeQuantExec::FakeQuantExec(Recipe recipe, Factors factors)
    : recipe_(std::move(recipe)), factors_(std::move(factors)) {}

at::Tensor FakeQuantExec::quantize(const Site& site, const at::Tensor& x, int bits,
                                   int64_t group) const {
  const auto factor = factors_.find(site.name);
  if (factor == factors_.end()) {
    return x.requires_grad() ? fake_quantize_st(x, bits, group, at::ones({1}))
                             : fake_quantize(x, bits, group);
  }
  if (x.requires_grad() || factor->second.requires_grad()) {
    return fake_quantize_st(x, bits, group, factor->second);
  }
  return fake_quantize(x, bits, group, factor->second.item<double>());
}

Activation FakeQuantExec::input(const Site& site, const at::Tensor& x_TI) const {
  const int bits = recipe_.linear(site.role, site.name).activation_bits;
  return {bits == kFloatBits ? x_TI : quantize(site, x_TI, bits, 0)};
}

at::Tensor FakeQuantExec::linear(const Weight& weight, const Activation& x_TI) const {
  return at::linear(x_TI.value, weight.value);
}

at::Tensor FakeQuantExec::point(const Site& site, const at::Tensor& x) const {
  const CacheScheme scheme = recipe_.cache(point_name(site.kind));
  const at::Tensor rotated = scheme.hadamard ? hadamard(x) : x;
  return scheme.bits == kFloatBits ? rotated : quantize(site, rotated, scheme.bits, scheme.group);
}

}  // namespace blockptq
