// Grouped-query attention (arXiv 2305.13245) with rotary positions and optional norms of queries
// and keys: Llama, Qwen3. Multi-head attention is the case G = H.
//
// Shapes: T tokens, D hidden, H query heads, G heads of keys and values (a divisor of H), K
// dimensions of a head; rope is half-split over all of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "exec/exec.h"
#include "nn/attention.h"
#include "nn/rope.h"

namespace blockptq::nn {

struct GqaSpec {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  double norm_eps = 1e-6;
  RopeSpec rope;
  int64_t max_tokens = 0;  ///< longest sequence that sees all of its keys; 0: any
};

class GqaAttention final : public Attention {
 public:
  struct Weights {
    Weight q_proj;      ///< [H * K, D]
    Weight k_proj;      ///< [G * K, D]
    Weight v_proj;      ///< [G * K, D]
    Weight o_proj;      ///< [D, H * K]
    at::Tensor q_norm;  ///< [K], fp32; undefined in a model without norms of queries and keys
    at::Tensor k_norm;  ///< likewise
  };

  GqaAttention(const GqaSpec& spec, Weights weights);

  /// Error for a sequence longer than `max_tokens`.
  at::Tensor forward(const Exec& exec, const at::Tensor& x_TD,
                     const AttentionOptions& options) const override;

 private:
  /// x_THK, each head normalised if there is a norm, and rotated -> out_THK.
  void norm_and_rotate(const at::Tensor& x_THK, const at::Tensor& norm_K, const RopeTable& rope,
                       at::Tensor out_THK) const;
  /// The queries of heads [begin, end) -> [end - begin, T, K].
  at::Tensor queries(const Exec& exec, const Activation& x, const RopeTable& rope, int64_t begin,
                     int64_t end) const;

  GqaSpec spec_;
  Weights weights_;
};

}  // namespace blockptq::nn
