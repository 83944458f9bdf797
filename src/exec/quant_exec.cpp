#include "exec/quant_exec.h"

#include <ATen/ATen.h>

#include <utility>

#include "quant/grid.h"
#include "quant/straight_through.h"

namespace blockptq {

QuantExec::QuantExec(Recipe recipe, Factors factors)
    : recipe_(std::move(recipe)), factors_(std::move(factors)) {}

int QuantExec::input_bits(const Site& site) const {
  return recipe_.linear(site.role, site.name).activation_bits;
}

const at::Tensor* QuantExec::factor(const Site& site) const {
  const auto found = factors_.find(site.name);
  return found == factors_.end() ? nullptr : &found->second;
}

at::Tensor QuantExec::rounded(const Site& site, const at::Tensor& x, int bits,
                              int64_t group) const {
  const at::Tensor* alpha = factor(site);
  if (alpha == nullptr) {
    return x.requires_grad() ? fake_quantize_st(x, bits, group, at::ones({1}))
                             : fake_quantize(x, bits, group);
  }
  if (x.requires_grad() || alpha->requires_grad()) {
    return fake_quantize_st(x, bits, group, *alpha);
  }
  return fake_quantize(x, bits, group, alpha->item<double>());
}

at::Tensor QuantExec::point(const Site& site, const at::Tensor& x) const {
  const CacheScheme scheme = recipe_.cache(point_name(site.kind));
  const at::Tensor rotated = scheme.hadamard ? hadamard(x) : x;
  return scheme.bits == kFloatBits ? rotated : rounded(site, rotated, scheme.bits, scheme.group);
}

}  // namespace blockptq
