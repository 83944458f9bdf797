#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/rms_norm_impl.h"

namespace blockptq::kernels {

void rms_norm_avx512(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                     int64_t count, int64_t dim, const float* weight, double eps, void* out) {
  rms_norm_vectors<Avx512>(in, type, in_stride, rows, count, dim, weight, eps, out);
}

}  // namespace blockptq::kernels

#endif
