// kernels/round_features.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/round_features.h"
#include "kernels/types.h"

namespace blockptq::kernels {

template <typename Vector>
struct FeatureRounder {
  using Floats = typename Vector::Floats;
  static constexpr int64_t kParts = 2;  ///< vectors that hide each other's latency
  static constexpr int64_t kTogether = kParts * Vector::kLanes;  ///< channels

  static Floats load(const float* at) {
    return Vector::template load<FloatType::f32>(reinterpret_cast<const uint8_t*>(at));
  }
  static void store(Floats value, float* at) {
    Vector::template store<FloatType::f32>(value, reinterpret_cast<uint8_t*>(at));
  }

  /// kTogether channels from `r` on. What is pending stays in the cache, close together.
  static void round(const FeatureRounding& rounding, int64_t r) {
    const auto q_max = Vector::broadcast(static_cast<float>((1 << (rounding.bits - 1)) - 1));
    const auto q_min = Vector::broadcast(-static_cast<float>(1 << (rounding.bits - 1)));
    Floats scales[kParts];
    Floats losses[kParts];
    Floats pending[kRoundedFeatures][kParts];
    for (int64_t p = 0; p < kParts; ++p) {
      const int64_t lane = r + p * Vector::kLanes;
      scales[p] = load(rounding.scales + lane);
      losses[p] = load(rounding.losses + lane);
      for (int64_t j = 0; j < rounding.features; ++j) {
        pending[j][p] = load(rounding.pending + j * rounding.stride + lane);
      }
    }
    for (int64_t j = rounding.features - 1; j >= 0; --j) {
      const float* row = rounding.matrix + j * rounding.row_stride;
      const float diagonal = row[j * rounding.column_stride];
      const auto inverse = Vector::broadcast(1 / diagonal);
      const auto squared = Vector::broadcast(diagonal * diagonal);
      Floats d[kParts];
      for (int64_t p = 0; p < kParts; ++p) {
        const int64_t at = j * rounding.stride + r + p * Vector::kLanes;
        const auto start = load(rounding.start + at);
        const auto v = Vector::multiply_add(pending[j][p], inverse, start);
        const auto q =
            Vector::min(Vector::max(Vector::round(Vector::divide(v, scales[p])), q_min), q_max);
        const auto residual = Vector::subtract_product(scales[p], q, v);
        losses[p] = Vector::multiply_add(Vector::multiply(residual, residual), squared, losses[p]);
        d[p] = Vector::subtract_product(scales[p], q, start);
        store(d[p], rounding.pending + at);
        Vector::store_int8(q, reinterpret_cast<uint8_t*>(rounding.codes + at));
      }
      for (int64_t i = 0; i < j; ++i) {
        const auto m = Vector::broadcast(row[i * rounding.column_stride]);
        for (int64_t p = 0; p < kParts; ++p) {
          pending[i][p] = Vector::multiply_add(m, d[p], pending[i][p]);
        }
      }
    }
    for (int64_t p = 0; p < kParts; ++p) {
      store(losses[p], rounding.losses + r + p * Vector::kLanes);
    }
  }

  /// Fewer channels: in buffers that are filled up.
  static void round_some(const FeatureRounding& rounding, int64_t r, int64_t count) {
    float start[kRoundedFeatures * kTogether];
    float pending[kRoundedFeatures * kTogether];
    int8_t codes[kRoundedFeatures * kTogether];
    float scales[kTogether];
    float losses[kTogether];
    for (int64_t lane = 0; lane < kTogether; ++lane) {
      const bool there = lane < count;
      scales[lane] = there ? rounding.scales[r + lane] : 1;
      losses[lane] = there ? rounding.losses[r + lane] : 0;
      for (int64_t j = 0; j < rounding.features; ++j) {
        start[j * kTogether + lane] = there ? rounding.start[j * rounding.stride + r + lane] : 0;
        pending[j * kTogether + lane] =
            there ? rounding.pending[j * rounding.stride + r + lane] : 0;
      }
    }
    FeatureRounding filled = rounding;
    filled.start = start;
    filled.pending = pending;
    filled.codes = codes;
    filled.stride = kTogether;
    filled.scales = scales;
    filled.losses = losses;
    round(filled, 0);
    for (int64_t lane = 0; lane < count; ++lane) {
      rounding.losses[r + lane] = losses[lane];
      for (int64_t j = 0; j < rounding.features; ++j) {
        rounding.pending[j * rounding.stride + r + lane] = pending[j * kTogether + lane];
        rounding.codes[j * rounding.stride + r + lane] = codes[j * kTogether + lane];
      }
    }
  }
};

template <typename Vector>
void round_features_vectors(const FeatureRounding& rounding, int64_t channel_begin,
                            int64_t channel_end) {
  using Kernel = FeatureRounder<Vector>;
  int64_t r = channel_begin;
  for (; r + Kernel::kTogether <= channel_end; r += Kernel::kTogether) {
    Kernel::round(rounding, r);
  }
  if (r < channel_end) {
    Kernel::round_some(rounding, r, channel_end - r);
  }
}

}  // namespace blockptq::kernels
