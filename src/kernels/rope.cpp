#include "kernels/rope.h"

#include "kernels/dispatch.h"
#include "kernels/reference/rope_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void rotate(const void* in, HeadStrides in_strides, FloatType type, int64_t tokens, int64_t heads,
            int64_t dim, const float* cos, const float* sin, bool interleaved, void* out,
            HeadStrides out_strides) {
  const auto kernel = BLOCKPTQ_CHOOSE(rotate);
  kernel(in, in_strides, type, tokens, heads, dim, cos, sin, interleaved, out, out_strides);
}

}  // namespace blockptq::kernels
