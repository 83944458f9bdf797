#include "calibrate/held_out.h"

#include <ATen/ATen.h>

#include "eval/head.h"
#include "eval/model_pass.h"

namespace blockptq {

Json measure_held_out(const TextStates& text, const TokenWindows& windows,
                      const std::function<HeadTile()>& next_tile) {
  const at::Tensor targets_N = target_tokens(windows, 1);
  const at::Tensor float_ND = text.float_CLD.flatten(0, 1);
  const at::Tensor quant_ND = text.quant_CLD.flatten(0, 1);
  HeadMeasure quant(targets_N);
  HeadMeasure exact(targets_N);
  for (HeadTile tile = next_tile(); tile.float_VD.defined(); tile = next_tile()) {
    exact.add(float_ND, tile.float_VD);
    quant.add(quant_ND, tile.quant_VD, float_ND, tile.float_VD);
  }
  return {{"block", -1},
          {"unit", "held_out"},
          {"float_ppl", perplexity(exact.losses(), windows, 1)},
          {"ppl", perplexity(quant.losses(), windows, 1)},
          {"kl", quant.divergence().mean().item<double>()},
          {"top1_agreement", quant.agreement().to(at::kDouble).mean().item<double>()}};
}

}  // namespace blockptq
