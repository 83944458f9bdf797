#include "kernels/reference/round_features_reference.h"

#include <algorithm>
#include <cmath>

namespace blockptq::kernels {

void round_features_reference(const FeatureRounding& rounding, int64_t channel_begin,
                              int64_t channel_end) {
  const auto q_max = static_cast<float>((1 << (rounding.bits - 1)) - 1);
  const auto m = [&](int64_t j, int64_t i) {
    return rounding.matrix[j * rounding.row_stride + i * rounding.column_stride];
  };
  for (int64_t r = channel_begin; r < channel_end; ++r) {
    const float scale = rounding.scales[r];
    float loss = rounding.losses[r];
    for (int64_t j = rounding.features - 1; j >= 0; --j) {
      const int64_t at = j * rounding.stride + r;
      const float diagonal = m(j, j);
      const float start = rounding.start[at];
      const float v = std::fma(rounding.pending[at], 1 / diagonal, start);
      const float q = std::clamp(std::nearbyint(v / scale), -q_max - 1, q_max);
      const float residual = std::fma(-scale, q, v);
      loss = std::fma(residual * residual, diagonal * diagonal, loss);
      const float d = std::fma(-scale, q, start);
      for (int64_t i = 0; i < j; ++i) {
        float& pending = rounding.pending[i * rounding.stride + r];
        pending = std::fma(m(j, i), d, pending);
      }
      rounding.pending[at] = d;
      rounding.codes[at] = static_cast<int8_t>(q);
    }
    rounding.losses[r] = loss;
  }
}

}  // namespace blockptq::kernels
