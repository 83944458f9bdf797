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

at::Tensor as_factor(const at::Tensor& matrix, at::ScalarType factors) {
  return multiplies_bf16(matrix) ? matrix.to(factors) : matrix;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType factors) {
  return at::matmul(as_factor(a, factors), as_factor(b, factors)).to(at::kFloat);
}

}  // namespace blockptq
