#include "quant/transforms/rotate.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "base/error.h"
#include "quant/composed.h"

namespace blockptq {
namespace {

at::Tensor random_signs(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<float> signs(static_cast<size_t>(count));
  for (float& sign : signs) {
    sign = (random() >> 63) == 0 ? 1.0F : -1.0F;
  }
  return at::tensor(signs);
}

at::Tensor hartley(int64_t order) {
  const at::Tensor index = at::arange(order, at::kDouble);
  // The product modulo the order keeps the angle exact.
  const at::Tensor angle = at::outer(index, index).remainder(static_cast<double>(order)) *
                           (2 * std::numbers::pi / static_cast<double>(order));
  return ((angle.cos() + angle.sin()) / std::sqrt(static_cast<double>(order))).to(at::kFloat);
}

}  // namespace

Rotation::Rotation(int64_t n, uint64_t seed) : power_(n & -n) {
  BPTQ_ASSERT(n > 0);
  signs_N_ = random_signs(n, seed);
  hartley_MM_ = hartley(n / power_);
}

// T (x) S, symmetric as both are: x T (x) S over the last dimension.
at::Tensor Rotation::mix(const at::Tensor& x) const {
  const at::Tensor groups = composed::hadamard(x.unflatten(-1, {x.size(-1) / power_, power_}));
  return at::matmul(hartley_MM_.to(x.device()), groups).flatten(-2);
}

at::Tensor Rotation::apply(const at::Tensor& x) const {
  BPTQ_ASSERT(x.size(-1) == signs_N_.size(0));
  return mix(x.to(at::kFloat) * signs_N_.to(x.device()));
}

at::Tensor Rotation::apply_inverse(const at::Tensor& x) const {
  BPTQ_ASSERT(x.size(-1) == signs_N_.size(0));
  return mix(x.to(at::kFloat)) * signs_N_.to(x.device());
}

}  // namespace blockptq
