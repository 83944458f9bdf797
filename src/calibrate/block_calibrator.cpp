#include "calibrate/block_calibrator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <utility>

#include "base/system.h"
#include "calibrate/attention_unit.h"
#include "calibrate/feed_forward_half.h"
#include "calibrate/shared_work.h"

namespace blockptq {
namespace {

/// The sequences of all texts that calibrate, or of all that do not.
SequenceSource sequences_of(const std::vector<TextStates>& texts, bool calibrate) {
  std::vector<std::pair<at::Tensor, at::Tensor>> sequences;
  for (const TextStates& text : texts) {
    for (int64_t c = 0; text.calibrate == calibrate && c < text.float_CLD.size(0); ++c) {
      sequences.emplace_back(text.float_CLD[c], text.quant_CLD[c]);
    }
  }
  const auto count = static_cast<int64_t>(sequences.size());
  return {count, [sequences](int64_t c) { return sequences[c].first; },
          [sequences](int64_t c) { return sequences[c].second; }};
}

}  // namespace

BlockCalibrator::BlockCalibrator(const CalibrationContext& context, const FakeQuantExec& quant_exec,
                                 const Model& model, nn::AttentionOptions attention,
                                 int64_t slice_tokens, UnitHooks hooks, Ranks& ranks)
    : context_(context),
      quant_exec_(quant_exec),
      model_(model),
      attention_(attention),
      slice_tokens_(slice_tokens),
      hooks_(std::move(hooks)),
      ranks_(ranks) {}

void BlockCalibrator::run(PieceStream& stream, int64_t block,
                          std::vector<TextStates>& texts) const {
  const c10::NoGradGuard no_grad;
  const UnitMaker units(hooks_, block, ranks_);
  run_attention(stream, block, units, texts);
  FeedForwardHalf(context_, quant_exec_, model_, block, slice_tokens_, units, ranks_, texts)
      .run(stream);
}

void BlockCalibrator::run_attention(PieceStream& stream, int64_t block, const UnitMaker& units,
                                    std::vector<TextStates>& texts) const {
  AttentionUnit unit(context_, quant_exec_, model_, stream.next(), block, attention_, ranks_);
  AttentionOutputs known;  // of the sequences that calibrate
  const UnitResult result = units.shared(Makers::all, "attention", unit.tensors(), [&] {
    return unit.calibrate(sequences_of(texts, /*calibrate=*/true), known);
  });
  units.passed("attention");
  const NormedAttention exact = unit.float_attention();
  const NormedAttention quantized = unit.quantized_attention(result);
  const FakeQuantExec quant_exec(context_.recipe, input_factors(result));
  for (const bool calibrate : {true, false}) {
    const SequenceSource sequences = sequences_of(texts, calibrate);
    const AttentionOutputs outputs = calibrate ? known : AttentionOutputs();
    for (int64_t c = 0; c < sequences.sequences; ++c) {
      if (!ranks_.does(c)) {
        continue;
      }
      check_stop();
      const at::Tensor float_LD = sequences.float_LD(c);
      const at::Tensor quant_LD = sequences.quant_LD(c);
      float_LD.add_(outputs.float_LD.empty() ? exact.forward(context_.float_exec, float_LD)
                                             : outputs.float_LD[c]);
      quant_LD.add_(outputs.quant_LD.empty() ? quantized.forward(quant_exec, quant_LD)
                                             : outputs.quant_LD[c]);
    }
    for (int64_t c = 0; c < sequences.sequences; ++c) {
      const int owner = static_cast<int>(c % ranks_.size());
      broadcast_tensor(ranks_, sequences.float_LD(c), owner);
      broadcast_tensor(ranks_, sequences.quant_LD(c), owner);
    }
  }
}

}  // namespace blockptq
