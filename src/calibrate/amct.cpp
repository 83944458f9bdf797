#include "calibrate/amct.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "base/size.h"
#include "base/system.h"
#include "calibrate/adamw.h"
#include "calibrate/amct_unit.h"

namespace blockptq {
namespace {

constexpr double kWeightDecay = 0.01;  // PyTorch's default

double mean_loss(const AmctUnit& unit, const at::Tensor& inputs_CLD,
                 const at::Tensor& targets_CLD) {
  double sum = 0;
  for (int64_t c = 0; c < inputs_CLD.size(0); ++c) {
    check_stop();
    sum += unit.loss(inputs_CLD.slice(0, c, c + 1), targets_CLD.slice(0, c, c + 1)).item<double>();
  }
  return sum / static_cast<double>(inputs_CLD.size(0));
}

AmctResult learn(const AmctUnit& unit, const at::Tensor& inputs_CLD, const AmctOptions& options) {
  const int64_t sequences = inputs_CLD.size(0);
  const int64_t steps = options.epochs * ceil_div(sequences, options.bsz);
  const at::Tensor targets_CLD = unit.targets(inputs_CLD);
  AmctReport report{sequences, sequences * inputs_CLD.size(1), 0, 0, {}};
  report.loss_before = mean_loss(unit, inputs_CLD, targets_CLD);
  AdamW adamw(unit.learned(), kWeightDecay);
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs && !unit.learned().empty(); ++epoch) {
    double sum = 0;
    for (int64_t begin = 0; begin < sequences; begin += options.bsz) {
      check_stop();
      const int64_t end = std::min(begin + options.bsz, sequences);
      const double loss =
          unit.backward(inputs_CLD.slice(0, begin, end), targets_CLD.slice(0, begin, end));
      adamw.step(cosine_lr(step++, steps, 10 * options.base_lr, 1e-3 * options.base_lr));
      sum += loss * static_cast<double>(end - begin);
    }
    report.epoch_sums.push_back(sum);
  }
  report.loss_after = mean_loss(unit, inputs_CLD, targets_CLD);
  return {unit.parameters(), std::move(report)};
}

}  // namespace

AmctResult learn_mlp_amct(const nn::Mlp& mlp, const at::Tensor& inputs_CLD,
                          const AmctOptions& options) {
  return learn(AmctMlp(mlp, options), inputs_CLD, options);
}

AmctResult learn_attention_amct(const Model& model, const Piece& piece, int64_t block,
                                const at::Tensor& inputs_CLD, const AmctOptions& options) {
  return learn(AmctAttention(model, piece, block, options), inputs_CLD, options);
}

}  // namespace blockptq
