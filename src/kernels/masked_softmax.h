// Attention probabilities from attention scores: scale, mask and softmax while a row is in the
// cache.
//
// Shapes: scores and probabilities are dense [heads, queries, keys].
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Which keys a query sees; the same for every head.
struct Visibility {
  /// [queries, keys] with rows `stride` bytes apart: 0 is hidden. Null: the causal mask, in which
  /// query i sees the keys j <= first_query + i.
  const uint8_t* bytes = nullptr;
  int64_t stride = 0;
  int64_t first_query = 0;
};

/// out[h, q, :] = softmax of scale * scores[h, q, :] over the keys that q sees, in fp32, rounded
/// once. Hidden keys get 0 whatever their scores; a row without visible keys is all 0.
///
/// scale > 0. Scores of -infinity count as hidden. A visible NaN or +infinity gets NaN, and so does
/// every key of its row but those that get 0. `out` may be `scores` where the types are the same.
/// Buffers need no alignment.
void masked_softmax(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                    int64_t keys, float scale, const Visibility& visible, FloatType out_type,
                    void* out);

}  // namespace blockptq::kernels
