#include "quant/algorithms/product.h"

#include <ATen/ATen.h>

namespace blockptq {
namespace {

bool multiplies_bf16(const at::Tensor& matrix) {
#if defined(__x86_64__)
  static const bool kCpu = __builtin_cpu_supports("avx512bf16") != 0;
#else
  constexpr bool kCpu = false;
#endif
  return !matrix.is_cpu() || kCpu;
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType factors) {
  if (factors == at::kFloat || !multiplies_bf16(a)) {
    return at::matmul(a, b);
  }
  return at::matmul(a.to(factors), b.to(factors)).to(at::kFloat);
}

}  // namespace blockptq
