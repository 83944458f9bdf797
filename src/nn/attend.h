// Softmax attention over keys of the same sequence, causal, with an optional selection of keys per
// query.
//
// Shapes: H heads, T tokens, K query/key features, V value features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blockptq::nn {

/// softmax(scale * q k^T over the visible keys) v -> [T, H, V]. A key j is visible to the query i
/// when j <= i and, if `selected_TT` (bool) is defined, selected_TT[i, j]. Never holds more than
/// `workspace_bytes` of scores at a time.
at::Tensor attend(const at::Tensor& q_HTK, const at::Tensor& k_HTK, const at::Tensor& v_HTV,
                  const at::Tensor& selected_TT, double scale, int64_t workspace_bytes);

}  // namespace blockptq::nn
