// How the codes of a weight are chosen. One file per algorithm; algorithms.cpp has the table.
//
// Shapes: O output channels, I input features, T tokens.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "quant/qtensor.h"
#include "quant/target_weight.h"

namespace blockptq {

/// What calibration knows about a group of consecutive features of the inputs of a linear. Sums
/// over its tokens t, each weighted by g_t^2 (g: the router's weight of a routed expert, else 1).
///
/// x: the input that the float model sees, x': the input that the quantized model sees (after
/// the quantized blocks and linears in front, itself fake-quantized).
struct InputStatistics {
  at::Tensor hessian_II;  ///< fp32, sum g^2 x' x'^T
  at::Tensor cross_II;    ///< fp32, sum g^2 (x - x') x'^T; undefined: x = x'
  int64_t tokens = 0;
};

/// The groups that make up all features of an input: one, unless it is very wide
/// (calibrate/statistics.h). Correlations between groups are not known and count as zero.
using GroupedStatistics = std::vector<InputStatistics>;

/// Codes of weights that see the same input (gate and up), so that what
/// is computed from its statistics is computed once. One result per weight, in order. Statistics
/// that were moved in are freed as soon as they are used: they may be larger than everything else.
/// Error for weights or statistics that are not finite.
using Algorithm = std::function<std::vector<QTensor>(at::ArrayRef<TargetWeight> weights, int bits,
                                                     GroupedStatistics input)>;

/// Error unless w is finite.
void check_weight(const at::Tensor& w_OI);

/// Error unless all of the statistics are finite and no feature has a negative second moment.
void check_statistics(const GroupedStatistics& input, int64_t features);

/// diag(H) of all features: fp32 [I].
at::Tensor second_moments(const GroupedStatistics& input);

/// The part of x [..., I] that belongs to each group.
std::vector<at::Tensor> split_features(const at::Tensor& x, const GroupedStatistics& input);

/// e H e^T of every row e: fp32 [O]. With the error of a weight for e and the Hessian of its input,
/// the squared error that the channel makes on the calibration tokens.
/// products: as product() has it.
at::Tensor quadratic_form(const at::Tensor& e_OI, const GroupedStatistics& input,
                          at::ScalarType products = at::kFloat);

}  // namespace blockptq
