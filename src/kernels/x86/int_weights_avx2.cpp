#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/int_weights_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void decode_int_avx2(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                     void* out) {
  decode_int_vectors<Avx2>(matrix, row_begin, row_end, type, out);
}

}  // namespace blockptq::kernels

#endif
