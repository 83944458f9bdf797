// Softmax attention over keys of the same sequence, causal, with an optional selection of keys per
// query.
//
// Shapes: H query heads, G heads of keys and values (a divisor of H), T tokens, K query/key
// features, V value features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blockptq::nn {

/// Scores are worked on in tiles that stay in the cache: a bound of the workspace that pays.
constexpr int64_t kScoreTileBytes = int64_t{3} << 20;

/// softmax(scale * q k^T over the visible keys) v -> [T, H, V]. Query head h reads the keys and
/// values of head h / (H / G), as arXiv 2305.13245 groups them; they are not repeated in memory. A
/// key j is visible to the query i when j <= i and, if `selected_TT` (bool) is defined,
/// selected_TT[i, j]. Never holds more than `workspace_bytes` of scores at a time.
at::Tensor attend(const at::Tensor& q_HTK, const at::Tensor& k_GTK, const at::Tensor& v_GTV,
                  const at::Tensor& selected_TT, double scale, int64_t workspace_bytes);

}  // namespace blockptq::nn
