// Which features of a block are scaled, and by how much: factors that balance what the grids have
// to cover (calibrate/balance.h) are tried on calibration tokens under plain rounding, and folded
// into the weights where they help.
//
// Where a tensor that is not quantized carries the factors, they are powers of two: they round
// nothing, so that the float model stays the same to the bit. Between up and down they are as they
// come: rows of up have a scale each, which takes them up.
//
// Shapes: F features, I columns of a reader.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "calibrate/balance.h"
#include "calibrate/unit.h"
#include "exec/exec.h"
#include "models/model.h"
#include "models/piece.h"
#include "quant/recipe.h"

namespace blockptq {

/// Sequences that factors are found and tried on.
constexpr int64_t kSmoothSequences = 4;

enum class Factors { powers_of_two, any };

/// `balanced_F` (fp32 [F], or undefined) as they can be carried, or undefined when they are not
/// worth it. `least`: the loss without factors; becomes that with them.
at::Tensor choose_factors(Factors kind, const at::Tensor& balanced_F,
                          const std::function<double(const at::Tensor& factors_F)>& loss,
                          double& least);

/// Rows of an activation, in the order that they come in, evenly spread over `total`.
class RowSample {
 public:
  explicit RowSample(int64_t total) : total_(total) {}
  void add(const at::Tensor& x_TI);
  at::Tensor rows() const;

 private:
  int64_t total_;
  std::vector<at::Tensor> parts_;
};

/// Of a linear.
BalancedReader balanced_reader(const Recipe& recipe, const Weight& weight);

/// Divides what makes the features and multiplies what reads them, in place. factors_F: powers of
/// two, which are undone to the bit by their reciprocals.
void fold(const Piece& piece, const ScalePoint& point, const at::Tensor& factors_F);

/// What fold() does to the tensors of `piece`, noted on top of what `targets` have.
void note_fold(const Piece& piece, const ScalePoint& point, const at::Tensor& factors_F,
               UnitTargets& targets);

}  // namespace blockptq
