#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/masked_softmax_impl.h"

namespace blockptq::kernels {

void masked_softmax_avx2(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                         int64_t keys, float scale, const Visibility& visible, FloatType out_type,
                         void* out, float* row) {
  masked_softmax_vectors<Avx2>(scores, in_type, heads, queries, keys, scale, visible, out_type, out,
                               row);
}

}  // namespace blockptq::kernels

#endif
