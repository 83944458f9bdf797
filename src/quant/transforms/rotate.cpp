#include "quant/transforms/rotate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <vector>

#include "base/error.h"
#include "quant/straight_through.h"

namespace blockptq {
namespace {

constexpr int64_t kPortion = 1 << 20;  // elements

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
  const int64_t order = x.size(-1) / power_;
  const at::Tensor groups = hadamard(x.unflatten(-1, {order, power_}));
  return order == 1 ? groups.flatten(-2)
                    : at::matmul(hartley_MM_.to(x.device()), groups).flatten(-2);
}

/// Some rows at a time, so that nothing else is as large as what is rotated.
void Rotation::apply_to(const at::Tensor& rows_RN, const at::Tensor& out_RN) const {
  BPTQ_ASSERT(rows_RN.size(1) == signs_N_.size(0));
  const at::Tensor signs_N = signs_N_.to(rows_RN.device());
  const int64_t portion = std::max<int64_t>(1, kPortion / signs_N.size(0));
  for (int64_t begin = 0; begin < rows_RN.size(0); begin += portion) {
    const int64_t end = std::min(begin + portion, rows_RN.size(0));
    out_RN.slice(0, begin, end).copy_(mix(rows_RN.slice(0, begin, end).to(at::kFloat) * signs_N));
  }
}

at::Tensor Rotation::apply(const at::Tensor& x) const {
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  apply_to(x.reshape({-1, x.size(-1)}), out.view({-1, x.size(-1)}));
  return out;
}

at::Tensor Rotation::apply_left(const at::Tensor& w) const {
  at::Tensor out = at::empty(w.sizes(), w.options().dtype(at::kFloat));
  apply_to(w.t(), out.t());
  return out;
}

at::Tensor Rotation::apply_inverse(const at::Tensor& x) const {
  BPTQ_ASSERT(x.size(-1) == signs_N_.size(0));
  return mix(x.to(at::kFloat)) * signs_N_.to(x.device());
}

}  // namespace blockptq
