// The lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2 report, section 2.1): picks the
// keys a query sees.
//
// Shapes: T tokens, D hidden, Q q_lora_rank, H index heads, K index head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "exec/exec.h"
#include "nn/rope.h"

namespace blockptq::nn {

struct IndexerSpec {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t rope_dim = 0;  ///< the first dimensions of a head are rotated, half-split
  int64_t top_k = 0;
};

struct Indexer {
  IndexerSpec spec;
  Weight wq_b;               ///< [H * K, Q]
  Weight wk;                 ///< [K, D]
  Weight weights_proj;       ///< [H, D], fp32
  at::Tensor k_norm_weight;  ///< [K], fp32
  at::Tensor k_norm_bias;    ///< [K], fp32

  /// Whether a sequence of `tokens` is long enough for any key to be left out.
  bool selects(int64_t tokens) const { return tokens > spec.top_k; }

  /// selected_TT (bool): [i, j] when j <= i and j is among the top_k visible keys of query i by
  /// sum_h w_h relu(q_h . k) (w from x, scaled by H^-0.5; q . k by K^-0.5), fp32.
  /// q_residual is the normalised query latent that the attention uses, x_TD the block's normalised
  /// input. Never holds more than `workspace_bytes` of scores at a time.
  at::Tensor select(const Exec& exec, const Activation& q_residual_TQ, const at::Tensor& x_TD,
                    const RopeTable& rope, int64_t workspace_bytes) const;
};

}  // namespace blockptq::nn
