#include <ATen/ATen.h>

#include "base/error.h"
#include "exec/exec.h"

namespace blockptq {

std::string_view point_name(SiteKind kind) {
  switch (kind) {
    case SiteKind::kv_latent:
      return "kv_latent";
    case SiteKind::key_cache:
      return "key_cache";
    case SiteKind::value_cache:
      return "value_cache";
    case SiteKind::indexer_query:
      return "indexer_query";
    case SiteKind::indexer_key:
      return "indexer_key";
    case SiteKind::linear_input:
      break;
  }
  fail("a linear's input is no cache point");
}

Weight Weight::rows(int64_t begin, int64_t end) const {
  return {name, role, value.defined() ? value.slice(0, begin, end) : value,
          integers ? std::optional(integers->rows(begin, end)) : std::nullopt};
}

Activation FloatExec::input(const Site& /*site*/, const at::Tensor& x_TI) const {
  return {.value = x_TI};
}

at::Tensor FloatExec::linear(const Weight& weight, const Activation& x_TI) const {
  return at::linear(x_TI.value, weight.value);
}

at::Tensor FloatExec::point(const Site& /*site*/, const at::Tensor& x) const {
  return x;
}

}  // namespace blockptq
