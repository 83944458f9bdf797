// Specification of kernels/index_scores.h.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

void index_scores_reference(const float* dots, const float* weights, int64_t queries, int64_t heads,
                            int64_t keys, float* out, int64_t out_stride);

}  // namespace blockptq::kernels
