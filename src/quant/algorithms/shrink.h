// Statistics of an expert that saw few tokens, helped by what all experts of the block saw.
#pragma once

#include "quant/algorithms/algorithm.h"

namespace blockptq {

/// As if the expert had also seen `strength` tokens per input feature that are the average of the
/// block's: H + n H_b / T_b, n = strength * I, and the same for the cross sums and the count. An
/// expert with many tokens is hardly changed; one with none gets the block's. The estimate of a
/// covariance shrunk towards a target (Ledoit and Wolf, 2004) with a weight that follows the count
/// alone.
///
/// `block`: the sums over all its experts, of the same input (gate and up; the inputs of down have
/// no common basis). Undefined sums are zero. The result takes the expert's memory.
GroupedStatistics shrink(GroupedStatistics&& expert, const GroupedStatistics& block,
                         double strength);

}  // namespace blockptq
