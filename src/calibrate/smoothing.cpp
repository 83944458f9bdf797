#include "calibrate/smoothing.h"

#include <ATen/ATen.h>

namespace blockptq {
namespace {

// Of the loss so far: the share that must be left for a strength to be taken. What helps plain
// rounding by a few percent is mostly chance.
constexpr double kWeakest = 0.98;
constexpr double kStronger = 0.9;
/// Factors that cost nothing even out what the grid of the reader has to cover.
constexpr double kAlways = 1.1;

}  // namespace

at::Tensor choose_factors(Factors kind, const std::vector<double>& alphas, const at::Tensor& x_F,
                          const at::Tensor& w_F,
                          const std::function<double(const at::Tensor& factors_F)>& loss,
                          double& least) {
  at::Tensor best_F;
  for (const double alpha : alphas) {
    at::Tensor factors_F = smooth_factors(x_F, w_F, alpha);
    if (kind == Factors::powers_of_two) {
      factors_F = nearest_power_of_two(factors_F);
    }
    const double found = loss(factors_F);
    const double needed = best_F.defined() ? kStronger : kind == Factors::any ? kAlways : kWeakest;
    if (found < needed * least) {
      best_F = factors_F;
      least = found;
    }
  }
  return best_F;
}

at::Tensor feature_magnitudes(const ScalePoint& point, const at::Tensor& magnitudes_I) {
  if (!point.columns_I.defined()) {
    return magnitudes_I;
  }
  const at::Tensor columns_I = point.columns_I.to(magnitudes_I.device());
  const at::Tensor zeros_F =
      at::zeros({columns_I.max().item<int64_t>() + 1}, magnitudes_I.options());
  const at::Tensor sums_F = zeros_F.index_add(0, columns_I, magnitudes_I.square());
  const at::Tensor counts_F = zeros_F.index_add(0, columns_I, at::ones_like(magnitudes_I));
  return (sums_F / counts_F).sqrt();
}

void fold(Piece& piece, const ScalePoint& point, const at::Tensor& factors_F) {
  const at::Tensor& producer = piece.tensor(point.producer);
  if (point.rows_F.defined()) {
    at::Tensor scaled = producer.clone();
    const at::Tensor rows_F = point.rows_F.to(producer.device());
    scaled.index_copy_(0, rows_F, fold_into_rows(producer.index_select(0, rows_F), factors_F));
    piece.replace(point.producer, scaled);
  } else {
    piece.replace(point.producer, fold_into_rows(producer, factors_F));
  }
  const at::Tensor factors_I =
      point.columns_I.defined() ? factors_F.index_select(0, point.columns_I.to(factors_F.device()))
                                : factors_F;
  for (const std::string& reader : point.readers) {
    piece.replace(reader, fold_into_columns(piece.tensor(reader), factors_I));
  }
}

}  // namespace blockptq
