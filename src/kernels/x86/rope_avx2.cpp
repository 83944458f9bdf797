#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/rope_impl.h"

namespace blockptq::kernels {

void rotate_avx2(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens,
                 int64_t heads, int64_t dim, const float* cos, const float* sin, bool interleaved,
                 void* out, HeadStrides out_strides) {
  rotate_vectors<Avx2>(in, in_strides, type, tokens, heads, dim, cos, sin, interleaved, out,
                       out_strides);
}

}  // namespace blockptq::kernels

#endif
