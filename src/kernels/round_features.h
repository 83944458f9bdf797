// Second-order rounding of a few features of many channels, from the last feature to the first
// (quant/algorithms/gptq.h; in ATen's operations every feature would be a handful of short ones).
//
// For feature j of channel r, under the scale s_r:
//
//   v = start_jr + pending_jr / M_jj,   q_jr = clamp(round(v / s_r)),   d = start_jr - s_r q_jr,
//   loss_r += M_jj^2 (v - s_r q_jr)^2,   pending_ir += M_ji d for all i < j,   pending_jr = d.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// The most features of one call.
constexpr int64_t kRoundedFeatures = 64;

/// fp32, J features, R channels.
struct FeatureRounding {
  int64_t features = 0;  ///< J
  int bits = 8;
  const float* matrix = nullptr;  ///< M_ji at j * row_stride + i * column_stride; M_jj > 0
  int64_t row_stride = 0;
  int64_t column_stride = 1;
  const float* start = nullptr;   ///< [J, R]
  float* pending = nullptr;       ///< [J, R]
  int8_t* codes = nullptr;        ///< [J, R]
  int64_t stride = 0;             ///< from feature to feature of these three
  const float* scales = nullptr;  ///< [R], > 0
  float* losses = nullptr;        ///< [R]
};

/// Channels [channel_begin, channel_end). Everything finite. Sums by fused multiply-adds in the
/// order above.
void round_features(const FeatureRounding& rounding, int64_t channel_begin, int64_t channel_end);

}  // namespace blockptq::kernels
