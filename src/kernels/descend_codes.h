// Coordinate descent on the codes of a weight whose channels weigh the tokens each in their own
// way: learned rounding by what a nonlinear function makes of the linear's output.
//
// Channel o, with code q_i of feature i under the scale s, is to minimise
//
//   sum_t (r_t - sum_i a_t x_it s (q_i' - q_i))^2  +  ridge sum_i (w_i - s q_i')^2
//
// in its new codes q', where r_t is what is wrong now and a_t how strongly the output of the linear
// acts on it (Gauss-Newton; exact for linear functions). All other codes given, the best one is
//
//   q_i' = clamp(round(q_i + (sum_t z_t x_it + ridge (w_i - s q_i)) / (s d_i))),
//   z_t = a_t r_t,  d_i = sum_t a_t^2 x_it^2 + ridge,
//
// and z_t loses a_t^2 x_it s (q_i' - q_i). One sweep goes through the features in their order.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// Tokens of a buffer come in multiples of this; zeros fill up.
constexpr int64_t kDescentTokens = 16;

/// Dense fp32, O channels, I features, T tokens.
struct CodeDescent {
  int64_t features = 0;
  int64_t tokens = 0;  ///< a multiple of kDescentTokens
  int bits = 8;
  const float* inputs = nullptr;     ///< x [I, T]
  const float* weights = nullptr;    ///< a^2 [O, T]
  const float* curvature = nullptr;  ///< d [O, I]; a feature of 0 keeps its code
  const float* targets = nullptr;    ///< w [O, I]
  const float* ridges = nullptr;     ///< [O]
  const float* scales = nullptr;     ///< s [O], > 0
};

/// One sweep over the channels [channel_begin, channel_end). gradients: z [O, T]; codes: [O, I], in
/// the range of `bits`. Sums over tokens: 16 sums of every 16th token by fused multiply-adds, added
/// in fp64.
void descend_codes(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                   float* gradients, int8_t* codes);

}  // namespace blockptq::kernels
