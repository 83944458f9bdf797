#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/index_scores_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void index_scores_avx512(const float* dots, const float* weights, int64_t queries, int64_t heads,
                         int64_t keys, float* out, int64_t out_stride) {
  index_scores_vectors<Avx512>(dots, weights, queries, heads, keys, out, out_stride);
}

}  // namespace blockptq::kernels

#endif
