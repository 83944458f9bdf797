// Fake quantization with straight-through gradients (arXiv 1308.3432), as fused autograd functions:
// the forward and the backward each pass over memory once. Values are those of quant/grid.h, bit
// for bit.
//
//   d out / d x     = 1 inside the clamp range, 0 outside, plus what flows through the scale to the
//   element(s) that set the maximum
//                     (equal parts to ties, as ATen's amax does)
//   d out / d scale = q - x / scale inside, the clamp bound outside
//
// Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq {

/// x [..., I] on the dynamic per-token grid of quant/grid.h; `alpha`: fp32, one element, factor on
/// the maximum; gradients to x and alpha.
at::Tensor fake_quantize_st(const at::Tensor& x, int bits, int64_t group, const at::Tensor& alpha);

/// Weight on the per-channel grid with s_o = clip_o max_i |w_oi| / q_max; gradient to clip_O (fp32
/// [O]) only. Result in `type`.
at::Tensor fake_quantize_weight_st(const at::Tensor& w_OI, int bits, const at::Tensor& clip_O,
                                   at::ScalarType type);

/// LWC of OmniQuant (arXiv 2308.13137): w clamped to [low_o min_i w_oi, high_o max_i w_oi], then
/// the grid of the clamped weight. Gradients to low_O and high_O (fp32 [O]) only: through the clamp
/// and through the scale (half each where both sides set it). Result in `type`.
at::Tensor fake_quantize_clamped_weight_st(const at::Tensor& w_OI, int bits,
                                           const at::Tensor& low_O, const at::Tensor& high_O,
                                           at::ScalarType type);

/// x [..., K] times the normalised Sylvester-Hadamard matrix of order K (a power of two, else an
/// Error); self-adjoint. fp32 inside.
at::Tensor hadamard(const at::Tensor& x);

}  // namespace blockptq
