#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/hadamard_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void hadamard_rows_avx2(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                        float* scratch) {
  hadamard_rows_vectors<Avx2>(in, type, rows, order, out, scratch);
}

}  // namespace blockptq::kernels

#endif
