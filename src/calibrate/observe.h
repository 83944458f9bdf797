// What enters the linears of an attention while both models run in front of rounding.
#pragma once

#include <vector>

#include "base/ranks.h"
#include "calibrate/attention_unit.h"
#include "calibrate/shared_work.h"

namespace blockptq {

/// Weights that see the same input, and the statistics of it.
struct ObservedInput {
  std::vector<Weight> weights;
  SharedStatistics sum;
};

/// Runs both models' attention on the sequences, each rank some of them, and sums up what enters
/// the linears of `targets`; those that are not used (an indexer that does not select) are left
/// out. Keeps the float model's outputs.
std::vector<ObservedInput> observe(const CalibrationContext& context,
                                   const FakeQuantExec& quant_exec, const NormedAttention& exact,
                                   const NormedAttention& unrounded,
                                   const SequenceSource& sequences,
                                   const std::vector<Weight>& targets, AttentionOutputs& outputs,
                                   Ranks& ranks);

}  // namespace blockptq
