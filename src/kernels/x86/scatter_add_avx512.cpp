#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/scatter_add_impl.h"

namespace blockptq::kernels {

void scatter_add_rows_avx512(const void* in, FloatType type, const float* weights,
                             const int64_t* rows, int64_t count, int64_t dim, void* out) {
  scatter_add_rows_vectors<Avx512>(in, type, weights, rows, count, dim, out);
}

}  // namespace blockptq::kernels

#endif
