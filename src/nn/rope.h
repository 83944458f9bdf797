// Rotary position embedding (arXiv 2104.09864) with the frequencies of YaRN (arXiv 2309.00071) or
// of Llama 3.1.
//
// Shapes: T tokens, H heads, R rotated dimensions (even).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace blockptq::nn {

/// YaRN's stretch of a trained context; names as in config.json's rope_scaling.
struct YarnScaling {
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
  double original_max_position_embeddings = 4096;
  /// What cos and sin are multiplied by, instead of what mscale and mscale_all_dim say.
  std::optional<double> attention_factor = std::nullopt;
  bool truncate = true;  ///< the ramp begins and ends at whole dimensions
};

/// Llama 3.1's stretch (its published code, `apply_scaling`): wavelengths above context /
/// low_freq_factor are stretched, below context / high_freq_factor kept, between them both mixed.
struct Llama3Scaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_max_position_embeddings = 8192;
};

struct RopeSpec {
  int64_t dim = 0;  ///< R
  double theta = 10000;
  std::optional<YarnScaling> yarn;
  std::optional<Llama3Scaling> llama3;  ///< not together with yarn

  /// What YaRN multiplies the softmax scale by: mscale(factor, mscale_all_dim)^2, 1 without YaRN.
  double softmax_factor() const;
};

/// cos and sin of positions 0..T-1, fp32 [T, R / 2] each.
struct RopeTable {
  at::Tensor cos;
  at::Tensor sin;
};

RopeTable make_rope_table(const RopeSpec& spec, int64_t tokens, at::Device device);

enum class RopeLayout {
  interleaved,  ///< pairs (x0, x1), (x2, x3), ...; the result is written as [even half | odd half]
  half_split,   ///< pairs (x0, x_{R/2}), (x1, x_{R/2+1}), ...
};

/// Rotates x_THR (H heads) by the position of its first dimension into out_THR, of the same type,
/// which may be any view that does not overlap x.
void rotate_into(const at::Tensor& x_THR, const RopeTable& table, RopeLayout layout,
                 at::Tensor out_THR);

}  // namespace blockptq::nn
