// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, 2.1) with the optional DSA indexer.
//
// Shapes: T tokens, D hidden, H heads, Q q_lora_rank, R kv_lora_rank; a query head is [nope |
// rope], the rope part of the key is shared by the heads; rope is interleaved.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "exec/exec.h"
#include "nn/attention.h"
#include "nn/indexer.h"
#include "nn/rope.h"

namespace blockptq::nn {

struct MlaSpec {
  int64_t heads = 0;
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  RopeSpec rope;
};

class MlaAttention final : public Attention {
 public:
  struct Weights {
    Weight q_a_proj;            ///< [Q, D]
    at::Tensor q_a_layernorm;   ///< [Q], fp32
    Weight q_b_proj;            ///< [H * (nope + rope), Q]
    Weight kv_a_proj_with_mqa;  ///< [R + rope, D]
    at::Tensor kv_a_layernorm;  ///< [R], fp32
    Weight kv_b_proj;           ///< [H * (nope + v), R]
    Weight o_proj;              ///< [D, H * v]
  };

  MlaAttention(const MlaSpec& spec, Weights weights, std::optional<Indexer> indexer);

  at::Tensor forward(const Exec& exec, const at::Tensor& x_TD,
                     const AttentionOptions& options) const override;

  /// The keys that each query sees, bool [T, T]; undefined where all earlier ones are seen.
  at::Tensor selected_keys(const Exec& exec, const at::Tensor& x_TD,
                           const AttentionOptions& options) const;

 private:
  Activation query_residual(const Exec& exec, const at::Tensor& x_TD) const;
  at::Tensor select(const Exec& exec, const Activation& q_residual, const at::Tensor& x_TD,
                    const RopeTable& rope, const AttentionOptions& options) const;
  /// Heads [begin, end): [T, end - begin, v].
  at::Tensor attend_heads(const Exec& exec, const Activation& q_residual, const Activation& latent,
                          const at::Tensor& k_rope_TR, const RopeTable& rope,
                          const at::Tensor& selected_TT, int64_t begin, int64_t end,
                          int64_t workspace_bytes) const;

  MlaSpec spec_;
  Weights weights_;
  std::optional<Indexer> indexer_;
};

}  // namespace blockptq::nn
