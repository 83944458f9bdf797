#include "kernels/rms_norm.h"

#include "kernels/dispatch.h"
#include "kernels/reference/rms_norm_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void rms_norm(const void* in, FloatType type, int64_t in_stride, const int64_t* rows, int64_t count,
              int64_t dim, const float* weight, double eps, void* out) {
  BLOCKPTQ_CHOOSE(rms_norm)(in, type, in_stride, rows, count, dim, weight, eps, out);
}

}  // namespace blockptq::kernels
