// Second-order rounding: codes that minimise the squared error of the output, e H e^T per channel
// with e = w - s q, one feature after the other, each making good for what rounding did before.
//
// GPTQ (arXiv 2210.17323) in the form of QuIP's LDLQ (arXiv 2307.13304, theorem 1): with H = L L^T
// and features rounded from last to first,
//
//   v_j = w_j + sum_{i > j} e_i L_ij / L_jj,   q_j = clamp(round(v_j / s)),   e_j = w_j - s q_j,
//
// and the loss is sum_j L_jj^2 (v_j - s q_j)^2: one Cholesky factor, no inverse. The sums are
// formed by halves of halves of the features, so that nearly all of the work is in large products.
//
// Three things are done beyond the paper; docs/rounding.md has what each of them gains on held-out
// tokens:
//   * the target is the weight corrected for the inputs of the quantized model (hessian_factor.h);
//   * every channel is rounded under several scales around the one that scale_search would take,
//     and the scale of the least loss is kept (the loss comes with the codes);
//   * coordinate descent: sweeps of v_j = w_j + sum_{i != j} e_i H_ij / H_jj, the exact minimum
//   over
//     one code given all others. It never increases the loss.
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "quant/algorithms/algorithm.h"
#include "quant/algorithms/hessian_factor.h"
#include "quant/qtensor.h"

namespace blockptq {

struct GptqOptions {
  FactorOptions factor;
  bool correct = true;        ///< use the cross sums
  int64_t scales = 11;        ///< scales tried per channel
  double scale_range = 0.15;  ///< relative to the searched scale, to both sides
  int64_t sweeps = 1;         ///< of coordinate descent
  /// Of the sums (product.h): what a sum is off by is far less than the step of any grid.
  at::ScalarType products = at::kFloat;
};

/// Codes of one target [O, I] (fp32, on the device of the factors), whose groups of features are
/// each in the order of their factor; the codes are in the order of the weight. Channels do not see
/// each other. Memory on the CPU beside the factors: the codes and 110 MB (more beyond 6000
/// features).
QTensor gptq(const at::Tensor& target_OI, int bits, at::ArrayRef<HessianFactor> factors,
             const GptqOptions& options);

/// As Algorithm, targets being made for as many channels at a time as 16 MiB hold on the CPU.
std::vector<QTensor> gptq(at::ArrayRef<TargetWeight> weights, int bits, GroupedStatistics input,
                          const GptqOptions& options);

}  // namespace blockptq
