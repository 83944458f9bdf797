#include "kernels/reference/index_scores_reference.h"

#include <cmath>

namespace blockptq::kernels {

void index_scores_reference(const float* dots, const float* weights, int64_t queries, int64_t heads,
                            int64_t keys, float* out, int64_t out_stride) {
  for (int64_t q = 0; q < queries; ++q) {
    for (int64_t k = 0; k < keys; ++k) {
      float score = 0;
      for (int64_t h = 0; h < heads; ++h) {
        const float dot = dots[(q * heads + h) * keys + k];
        score = std::fma(weights[q * heads + h], dot < 0 ? 0 : dot, score);
      }
      out[q * out_stride + k] = score;
    }
  }
}

}  // namespace blockptq::kernels
