// A unit of calibration: the attention of a block, a dense MLP, the shared experts, or one routed
// expert.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/ranks.h"
#include "exec/exec.h"
#include "exec/fake_quant_exec.h"
#include "models/stream_rotation.h"
#include "quant/algorithms/algorithm.h"
#include "quant/qtensor.h"
#include "quant/recipe.h"
#include "quant/target_weight.h"
#include "run/tensor_file.h"

namespace blockptq {

/// How a unit went. Losses: squared error of the output on the calibration tokens, relative to the
/// float output, each token weighted by its squared router weight.
struct UnitReport {
  int64_t block = 0;
  std::string unit;  ///< "attention", "mlp", "shared_experts" or "expert 7"
  int64_t tokens = 0;
  double loss_before = 0;  ///< of plain rounding
  double loss_after = 0;
  double seconds = 0;
  std::string fallback;  ///< why plain rounding was kept; empty: it was not

  Json json() const;
};

/// What stands in the place of a unit's tensors before rounding, by name. Without an entry: the
/// tensor itself.
using UnitTargets = std::map<std::string, TargetWeight>;

/// What the quantized model has in the place of the unit's weights, by name.
struct UnitResult {
  std::map<std::string, QTensor> weights;
  NamedTensors input_clips;  ///< LAC logits, by the weight behind the site
  /// Tensors that stay in floating point and that a rotation has changed, fp32, with what is folded
  /// in.
  std::map<std::string, at::Tensor> transformed;
  UnitTargets targets;  ///< has all of `weights`
  UnitReport report;
};

/// What all units of a run share; must outlive them.
struct CalibrationContext {
  const Recipe& recipe;
  const Json& default_algorithm;  ///< for linears whose rule names none
  at::ScalarType type;            ///< compute type
  FloatExec float_exec;
  const Json& default_refinement;  ///< for MLPs whose rule names none (calibrate/refinement.h)
  /// Of the residual stream: the tensors that units are made of have it. Null: none.
  const StreamRotation* rotation = nullptr;
  /// Tells the types that tensors are written in; null: fp32.
  const Checkpoint* source = nullptr;

  /// Whether all features are smoothed, those that leave a norm too.
  bool smooths() const { return recipe.transforms().smooth == Smoothing::all; }
  /// Whether tensors that stay in floating point may be other ones than the source's.
  bool transforms() const { return rotation != nullptr || smooths(); }
};

/// Notes those of a unit's tensors that the residual stream's rotation has changed and that stay in
/// floating point.
void keep_rotated(const CalibrationContext& context, const std::vector<Weight>& tensors,
                  UnitResult& result);

/// `tensor` as the quantized model has it: rounded to the type that it is written in, if it stays
/// in floating point.
at::Tensor as_written(const CalibrationContext& context, const Weight& tensor);

/// Whether the integers of any of `weights` come from cross sums too.
bool needs_cross_sums(const CalibrationContext& context, const std::vector<Weight>& weights);

/// Integers for `weights`, which see the same input, from their targets in `result`; none for
/// weights that the recipe leaves in floating point. Statistics that were moved in are freed as
/// soon as they are used. The `ranks` choose them together.
void choose_codes(const CalibrationContext& context, const std::vector<Weight>& weights,
                  GroupedStatistics input, UnitResult& result, Ranks& ranks = alone());

/// The same by plain rounding.
void round_to_nearest(const CalibrationContext& context, const std::vector<Weight>& weights,
                      UnitResult& result);

/// A result of plain rounding of those targets.
UnitResult plain_rounding(const CalibrationContext& context, const std::vector<Weight>& weights,
                          UnitTargets targets = {});

/// Notes the losses of plain rounding and of `result`, which becomes plain() where it is worse.
/// Returns whether it did.
bool keep_better(double loss_before, double loss_after, const std::function<UnitResult()>& plain,
                 UnitResult& result);

/// `tensor` as the quantized model computes with it: its integers, or as written.
Weight quantized_weight(const CalibrationContext& context, const Weight& tensor,
                        const UnitResult& result);

/// The factors of result's activations, as FakeQuantExec wants them.
FakeQuantExec::Factors input_factors(const UnitResult& result);
/// That of the activation in front of `weight`; 1 where none was learned.
double factor_of(const UnitResult& result, const Weight& weight);

/// Sums of weighted squared errors and norms.
class RelativeError {
 public:
  RelativeError() = default;
  RelativeError(double error, double norm) : error_(error), norm_(norm) {}

  /// y, reference: [T, D]; weight_T: fp32 or undefined.
  void add(const at::Tensor& y, const at::Tensor& reference, const at::Tensor& weight_T);
  double value() const { return norm_ > 0 ? error_ / norm_ : 0; }
  double error() const { return error_; }
  double norm() const { return norm_; }
  /// Those whose weight is not 0.
  int64_t tokens() const { return tokens_; }

 private:
  double error_ = 0;
  double norm_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace blockptq
