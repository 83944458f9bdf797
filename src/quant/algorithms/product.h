// Large products of fp32 matrices whose last bits do not count.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq {

/// a b, in fp32. factors = bf16: both are rounded to it first, where the device multiplies that
/// faster than fp32 (GPUs, and CPUs with AVX512-BF16).
at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType factors);

/// `matrix` (fp32) as product() would round it: for one that takes part in many products.
at::Tensor as_factor(const at::Tensor& matrix, at::ScalarType factors);

}  // namespace blockptq
