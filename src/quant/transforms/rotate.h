// Rotation: an orthogonal change of basis of the residual stream that is folded into every weight
// that touches it and spreads outliers over all features (QuaRot, arXiv 2404.00456).
//
//   Q = diag(r) (T_m (x) S_2^k),   n = m 2^k, m odd
//
// r: random signs; S: Sylvester's Hadamard matrix / sqrt(2^k); T: the discrete Hartley transform,
// T_ab = (cos + sin)(2 pi a b / m) / sqrt(m), orthogonal for every m and nearly as flat as a
// Hadamard matrix, which no odd size but 1 has. Q is never formed: n (m + k) operations per row.
//
// With h' = h Q for the stream (a row), an RMS norm without weight commutes with Q, so that the
// weight of the norm is folded into its readers first; then a linear that reads the stream becomes
// W Q, one that writes to it Q^T W, an embedding E Q.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blockptq {

class Rotation {
 public:
  /// Of n features; the signs follow from the seed, on every machine.
  Rotation(int64_t n, uint64_t seed);

  /// x Q over the last dimension [..., n]: fp32, x of any floating type.
  at::Tensor apply(const at::Tensor& x) const;
  /// Q^T w over the first dimension [n, I]: likewise.
  at::Tensor apply_left(const at::Tensor& w) const;
  /// x Q^T: the way back.
  at::Tensor apply_inverse(const at::Tensor& x) const;

 private:
  at::Tensor mix(const at::Tensor& x) const;
  void apply_to(const at::Tensor& rows_RN, const at::Tensor& out_RN) const;

  at::Tensor signs_N_;
  at::Tensor hartley_MM_;
  int64_t power_;  ///< 2^k
};

}  // namespace blockptq
