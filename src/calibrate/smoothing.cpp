#include "calibrate/smoothing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "quant/transforms/smooth.h"

namespace blockptq {
namespace {

// Of the loss without factors: the share that must be left for them to be taken. What helps plain
// rounding by a few percent is mostly chance.
constexpr double kWorthIt = 0.98;
/// Factors that cost nothing even out what the grid of the reader has to cover.
constexpr double kAlways = 1.1;

/// The factor of each row of the producer: 1 for those that make none of the features.
at::Tensor rows_of(const ScalePoint& point, const at::Tensor& factors_F,
                   const at::Tensor& producer) {
  if (!point.rows_F.defined()) {
    return factors_F;
  }
  const at::Tensor rows_O = at::ones({producer.size(0)}, factors_F.options());
  return rows_O.index_copy_(0, point.rows_F.to(rows_O.device()), factors_F);
}

/// The factor of each column of the readers.
at::Tensor columns_of(const ScalePoint& point, const at::Tensor& factors_F) {
  return point.columns_I.defined()
             ? factors_F.index_select(0, point.columns_I.to(factors_F.device()))
             : factors_F;
}

void note_factors(const Weight& tensor, const FoldedFactors& more, UnitTargets& targets) {
  TargetWeight& target = targets.try_emplace(tensor.name, tensor.value).first->second;
  target = TargetWeight(tensor.value, combined(target.folded(), more));
}

}  // namespace

at::Tensor choose_factors(Factors kind, const at::Tensor& balanced_F,
                          const std::function<double(const at::Tensor& factors_F)>& loss,
                          double& least) {
  if (!balanced_F.defined()) {
    return {};
  }
  const bool any = kind == Factors::any;
  at::Tensor factors_F = any ? balanced_F : nearest_power_of_two(balanced_F);
  const double found = loss(factors_F);
  if (found >= (any ? kAlways : kWorthIt) * least) {
    return {};
  }
  least = found;
  return factors_F;
}

void RowSample::add(const at::Tensor& x_TI) {
  const int64_t step = std::max<int64_t>(1, total_ / balanced_tokens(x_TI.size(1)));
  parts_.push_back(x_TI.slice(0, 0, c10::nullopt, step).clone());
}

at::Tensor RowSample::rows() const {
  return at::cat(parts_);
}

BalancedReader balanced_reader(const Recipe& recipe, const Weight& weight) {
  return {weight.value, recipe.linear(weight.role, weight.name).weight_bits};
}

void fold(const Piece& piece, const ScalePoint& point, const at::Tensor& factors_F) {
  const at::Tensor& producer = piece.tensor(point.producer);
  producer.copy_(fold_into_rows(producer, rows_of(point, factors_F, producer)));
  const at::Tensor factors_I = columns_of(point, factors_F);
  for (const std::string& reader : point.readers) {
    const at::Tensor& value = piece.tensor(reader);
    value.mul_(factors_I.to(value.scalar_type()));  // exact; of one type: without a copy
  }
}

void note_fold(const Piece& piece, const ScalePoint& point, const at::Tensor& factors_F,
               UnitTargets& targets) {
  const Weight& producer = piece.weight(point.producer);
  note_factors(producer, {rows_of(point, factors_F, producer.value), {}}, targets);
  for (const std::string& reader : point.readers) {
    note_factors(piece.weight(reader), {{}, columns_of(point, factors_F)}, targets);
  }
}

}  // namespace blockptq
