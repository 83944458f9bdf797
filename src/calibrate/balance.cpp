#include "calibrate/balance.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/system.h"
#include "calibrate/adamw.h"
#include "quant/algorithms/slabs.h"
#include "quant/recipe.h"

namespace blockptq {
namespace {

constexpr int64_t kMostTokens = 2048;
constexpr int64_t kMostChannels = 1024;
constexpr int64_t kMostElements = int64_t{1} << 24;
constexpr int64_t kSteps = 40;
constexpr double kRate = 0.1;
/// How much a token is worth against the start: measured on held-out tokens (docs/rounding.md).
constexpr double kHold = 10;

/// A maximum over columns [begin, end) of rows, times an error over the same columns:
///
///   scale  sum_r weight_r max_i (row_ri f_i)^2  sum_i energy_i / f_i^2,  f = s^direction
struct Term {
  at::Tensor rows_RC;  ///< fp32 >= 0
  at::Tensor weight_R;
  at::Tensor energy_C;
  int64_t begin;
  int64_t end;
  int direction;
  double scale;

  /// Adds the derivative with respect to log s to the gradient.
  double add(const at::Tensor& log_I, const at::Tensor& gradient_I) const {
    const at::Tensor factors_C = (log_I.slice(0, begin, end) * direction).exp_();
    const auto [max_R, at_R] = (rows_RC * factors_C).max(1);
    const at::Tensor squares_R =
        weight_R.defined() ? max_R.square_().mul_(weight_R) : max_R.square_();
    const at::Tensor maxima_C = at::zeros_like(factors_C).index_add_(0, at_R, squares_R);
    const at::Tensor errors_C = energy_C / factors_C.square_();
    const auto maxima = squares_R.sum(at::kDouble).item<double>();
    const auto errors = errors_C.sum(at::kDouble).item<double>();
    gradient_I.slice(0, begin, end)
        .add_(maxima_C.mul_(errors).sub_(errors_C, maxima), 2 * direction * scale);
    return scale * maxima * errors;
  }
};

double grid_scale(int bits) {
  const double q_max = std::exp2(bits - 1) - 1;
  return 1 / (12 * q_max * q_max);
}

/// Tokens of unusual size, such as the first of a text, count as one of the usual size: what comes
/// after it is normalised.
at::Tensor token_weights(const BalancedInput& input) {
  const at::Tensor energy_T = input.x_TI.to(at::kFloat).square().mean(1);
  const at::Tensor usual = energy_T.median().clamp_min(1e-30);
  const at::Tensor weight_T = usual / energy_T.maximum(usual);
  return input.weight_T.defined() ? weight_T * input.weight_T : weight_T;
}

/// Evenly spread rows.
at::Tensor some_rows(const at::Tensor& w_OI) {
  const int64_t step = std::max<int64_t>(1, w_OI.size(0) / kMostChannels);
  return w_OI.slice(0, 0, c10::nullopt, step);
}

void add_input_terms(const BalancedInput& input, const at::Tensor& weight_T,
                     const at::Tensor& reader_energy_I, std::vector<Term>& terms) {
  const int64_t columns = input.x_TI.size(1);
  const int64_t group = input.group == 0 ? columns : input.group;
  for (int64_t begin = 0; begin < columns; begin += group) {
    const int64_t end = std::min(begin + group, columns);
    terms.push_back({input.x_TI.slice(1, begin, end).to(at::kFloat).abs(), weight_T,
                     reader_energy_I.slice(0, begin, end), begin, end, -1, grid_scale(input.bits)});
  }
}

void add_reader_term(const BalancedReader& reader, const at::Tensor& input_energy_I,
                     std::vector<Term>& terms) {
  const at::Tensor rows_RI = some_rows(reader.w_OI).to(at::kFloat).abs();
  const double each =
      static_cast<double>(reader.w_OI.size(0)) / static_cast<double>(rows_RI.size(0));
  terms.push_back(
      {rows_RI, {}, input_energy_I, 0, rows_RI.size(1), 1, each * grid_scale(reader.bits)});
}

/// Sums over the columns of every feature.
at::Tensor per_feature(const at::Tensor& value_I, const at::Tensor& columns_I) {
  return columns_I.defined() ? at::zeros({columns_I.max().item<int64_t>() + 1}, value_I.options())
                                   .index_add_(0, columns_I, value_I)
                             : value_I;
}

at::Tensor centred(const at::Tensor& log_F, const at::Tensor& used_F) {
  const at::Tensor mean = (log_F * used_F).sum() / used_F.sum().clamp_min(1);
  return (log_F - mean) * used_F;
}

/// log s with the least sum of the terms, held near the start.
at::Tensor descend(const std::vector<Term>& terms, const at::Tensor& columns_I,
                   const at::Tensor& start_F, const at::Tensor& used_F, double hold) {
  at::Tensor log_F = start_F.clone().requires_grad_(true);
  AdamW optimizer({log_F}, /*weight_decay=*/0);
  for (int64_t step = 0; step < kSteps; ++step) {
    check_stop();
    const at::Tensor now_F = log_F.detach();
    const at::Tensor log_I = columns_I.defined() ? now_F.index_select(0, columns_I) : now_F;
    const at::Tensor gradient_I = at::zeros_like(log_I);
    double total = 0;
    for (const Term& term : terms) {
      total += term.add(log_I, gradient_I);
    }
    const at::Tensor gradient_F = per_feature(gradient_I, columns_I) / std::max(total, 1e-30);
    log_F.mutable_grad() = gradient_F.add_(now_F - start_F, 2 * hold).mul_(used_F);
    optimizer.step(cosine_lr(step, kSteps, kRate, 0));
  }
  return log_F.detach();
}

}  // namespace

int64_t balanced_tokens(int64_t columns) {
  return std::clamp<int64_t>(kMostElements / columns, 1, kMostTokens);
}

at::Tensor balance_factors(const BalancedInput& input, const std::vector<BalancedReader>& readers,
                           const at::Tensor& columns_I) {
  BPTQ_ASSERT(input.x_TI.size(0) > 0 && !readers.empty());
  const at::Tensor columns = columns_I.defined() ? columns_I.to(input.x_TI.device()) : columns_I;
  const at::Tensor weight_T = token_weights(input);
  const at::Tensor input_energy_I =
      (input.x_TI.to(at::kFloat).square() * weight_T.unsqueeze(1)).sum(0);
  const at::Tensor reader_energy_I = at::zeros_like(input_energy_I);
  for (const BalancedReader& reader : readers) {
    const TargetWeight weight(reader.w_OI);
    for_slabs(reader.w_OI, /*scales=*/1,
              [&](const Slab& slab) { reader_energy_I.add_(slab(weight).square().sum(0)); });
  }
  std::vector<Term> terms;
  if (input.bits != kFloatBits) {
    add_input_terms(input, weight_T, reader_energy_I, terms);
  }
  for (const BalancedReader& reader : readers) {
    if (reader.bits != kFloatBits) {
      add_reader_term(reader, input_energy_I, terms);
    }
  }
  if (terms.empty()) {
    return {};
  }
  const at::Tensor energy_F = per_feature(input_energy_I, columns);
  const at::Tensor read_F = per_feature(reader_energy_I, columns);
  const at::Tensor used_F = at::logical_and(energy_F > 0, read_F > 0).to(at::kFloat);
  const at::Tensor start_F =
      centred((energy_F.clamp_min(1e-30) / read_F.clamp_min(1e-30)).log().div_(4), used_F);
  const double hold = kHold / static_cast<double>(input.x_TI.size(0));
  return centred(descend(terms, columns, start_F, used_F, hold), used_F).exp_();
}

}  // namespace blockptq
