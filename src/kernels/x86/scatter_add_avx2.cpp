#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/scatter_add_impl.h"

namespace blockptq::kernels {

void scatter_add_rows_avx2(const void* in, FloatType type, const float* weights,
                           const int64_t* rows, int64_t count, int64_t dim, void* out) {
  scatter_add_rows_vectors<Avx2>(in, type, weights, rows, count, dim, out);
}

}  // namespace blockptq::kernels

#endif
