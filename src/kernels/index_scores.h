// Scores of the lightning indexer of DeepSeek Sparse Attention (arXiv 2512.02556, equation 1), from
// the dot products of its queries and keys.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// out[q, k] = sum over h of weights[q, h] * max(dots[q, h, k], 0), by fused multiply-adds in the
/// order of h, starting from 0. A NaN stays NaN.
///
/// dots: [queries, heads, keys], weights: [queries, heads], dense; out: rows of `keys`,
/// `out_stride` elements apart, not overlapping the inputs.
void index_scores(const float* dots, const float* weights, int64_t queries, int64_t heads,
                  int64_t keys, float* out, int64_t out_stride);

}  // namespace blockptq::kernels
