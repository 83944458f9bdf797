#include "calibrate/time_estimate.h"

#include <functional>
#include <numeric>

namespace blockptq {
namespace {

constexpr double kPasses = 7;      // of tokens through a unit: statistics, losses, both models
constexpr double kRounding = 14;   // operations per weight and feature (docs/rounding.md, "Cost")
constexpr double kStatistics = 4;  // operations per token and pair of features

bool in_a_block(const PieceSpec& piece) {
  const Unit unit = piece.tensors.front().spec.unit;
  return unit == Unit::attention || unit == Unit::feed_forward || unit == Unit::expert;
}

int64_t parameters(const PieceSpec& piece) {
  int64_t sum = 0;
  for (const TensorSlice& slice : piece.tensors) {
    sum += std::accumulate(slice.spec.shape.begin(), slice.spec.shape.end(), int64_t{1},
                           std::multiplies<>());
  }
  return sum;
}

double operations(const PieceSpec& piece, const Recipe& recipe, double tokens) {
  double sum = 0;
  for (const TensorSlice& slice : piece.tensors) {
    const ModelTensor& tensor = slice.spec;
    if (tensor.shape.size() != 2) {
      continue;
    }
    const auto outputs = static_cast<double>(tensor.shape[0]);
    const auto inputs = static_cast<double>(tensor.shape[1]);
    sum += 2 * kPasses * tokens * outputs * inputs;
    if (recipe.quantizes(tensor.role, tensor.name)) {
      sum += kRounding * outputs * inputs * inputs + kStatistics * tokens * inputs * inputs;
    }
  }
  return sum;
}

}  // namespace

TimeEstimate::TimeEstimate(const std::vector<PieceSpec>& pieces, const Recipe& recipe,
                           int64_t tokens, double expert_share) {
  for (const PieceSpec& piece : pieces) {
    if (!in_a_block(piece)) {
      continue;
    }
    const ModelTensor& first = piece.tensors.front().spec;
    const Key key{first.unit, parameters(piece)};
    const double share = first.unit == Unit::expert ? expert_share : 1;
    Kind& kind = kinds_[key];
    kind.operations = operations(piece, recipe, share * static_cast<double>(tokens));
    ++kind.units;
    kind_of_[{first.unit, first.block}] = key;
  }
}

void TimeEstimate::finished(Unit unit, int64_t block, double seconds) {
  Kind& kind = kinds_.at(kind_of_.at({unit, block}));
  ++kind.done;
  kind.seconds += seconds;
}

double TimeEstimate::remaining() const {
  double seconds = 0;
  double operations = 0;
  for (const auto& [key, kind] : kinds_) {
    seconds += kind.seconds;
    operations += kind.operations * static_cast<double>(kind.done);
  }
  if (operations == 0) {
    return 0;
  }
  double remaining = 0;
  for (const auto& [key, kind] : kinds_) {
    const double each = kind.done > 0 ? kind.seconds / static_cast<double>(kind.done)
                                      : kind.operations * seconds / operations;
    remaining += each * static_cast<double>(kind.units - kind.done);
  }
  return remaining;
}

}  // namespace blockptq
