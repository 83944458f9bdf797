#include "kernels/index_scores.h"

#include "kernels/dispatch.h"
#include "kernels/reference/index_scores_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void index_scores(const float* dots, const float* weights, int64_t queries, int64_t heads,
                  int64_t keys, float* out, int64_t out_stride) {
  BLOCKPTQ_CHOOSE(index_scores)(dots, weights, queries, heads, keys, out, out_stride);
}

}  // namespace blockptq::kernels
