// Statistics of a vocabulary of logits that arrives tile by tile, in one pass over memory and
// without temporaries.
//
// Online softmax (Milakov & Gimelshein, arXiv 1805.02867): per token the running maximum m and the
// running sum s = sum exp(logit - m); log-sum-exp = m + log s.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Running statistics of one token.
struct SoftmaxStats {
  float max = -std::numeric_limits<float>::infinity();
  double sum = 0;  ///< sum of exp(logit - max)
};

/// Adds the logits of row `t`, logits[t * stride .. + width), to stats[t], for t in [0, tokens).
/// Logits of -infinity count as probability 0; a NaN or +infinity makes the sum NaN.
void accumulate_softmax(const void* logits, FloatType type, int64_t tokens, int64_t width,
                        int64_t stride, SoftmaxStats* stats);

/// Adds the statistics of other logits of the same token to `stats`.
void merge_softmax(const SoftmaxStats& other, SoftmaxStats& stats);

}  // namespace blockptq::kernels
