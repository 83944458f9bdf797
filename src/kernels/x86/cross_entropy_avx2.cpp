#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/cross_entropy_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void accumulate_softmax_avx2(const void* logits, FloatType type, int64_t tokens, int64_t width,
                             int64_t stride, SoftmaxStats* stats) {
  accumulate_softmax_vectors<Avx2>(logits, type, tokens, width, stride, stats);
}

}  // namespace blockptq::kernels

#endif
