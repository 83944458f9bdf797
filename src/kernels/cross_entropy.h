// Statistics of a vocabulary of logits that arrives tile by tile, in one pass over memory and
// without temporaries.
//
// Online softmax (Milakov & Gimelshein, arXiv 1805.02867): per token the running maximum m and the
// running sum s = sum exp(logit - m); log-sum-exp = m + log s.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Running statistics of one token.
struct SoftmaxStats {
  float max;   ///< start with -infinity
  double sum;  ///< sum of exp(logit - max); start with 0
};

/// Adds the logits of row `t`, logits[t * stride .. + width), to stats[t], for t in [0, tokens).
void accumulate_softmax(const void* logits, FloatType type, int64_t tokens, int64_t width,
                        int64_t stride, SoftmaxStats* stats);

}  // namespace blockptq::kernels
