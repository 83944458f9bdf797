// Which features of a block are scaled, and by how much: factors of several strengths are tried on
// calibration tokens under plain rounding, and the best ones are folded into the weights.
//
// Where a tensor that is not quantized carries the factors, they are powers of two: they round
// nothing, so that the float model stays the same to the bit. Between up and down they are as they
// come: rows of up have a scale each, which takes them up.
//
// Shapes: F features, I columns of a reader.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "models/model.h"
#include "models/piece.h"
#include "quant/transforms/smooth.h"

namespace blockptq {

/// Tokens, or sequences, that strengths are tried on.
constexpr int64_t kSmoothTokens = 1024;
constexpr int64_t kSmoothSequences = 4;

enum class Factors { powers_of_two, any };

/// The factors (fp32 [F]) of the strength in `alphas` with the least loss; undefined when none is
/// worth it. x_F, w_F: magnitudes of the activation and of its readers. `least`: the loss without
/// factors; becomes that with the chosen ones.
at::Tensor choose_factors(Factors kind, const std::vector<double>& alphas, const at::Tensor& x_F,
                          const at::Tensor& w_F,
                          const std::function<double(const at::Tensor& factors_F)>& loss,
                          double& least);

/// Magnitudes [I] of what the readers of `point` see, as those of its features: root mean squares
/// over the columns that see the same one.
at::Tensor feature_magnitudes(const ScalePoint& point, const at::Tensor& magnitudes_I);

/// Divides what makes the features and multiplies what reads them.
void fold(Piece& piece, const ScalePoint& point, const at::Tensor& factors_F);

}  // namespace blockptq
