#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/row_range_impl.h"

namespace blockptq::kernels {

void group_absmax_avx2(const void* in, FloatType type, const RowGroups& shape, float* maxima) {
  group_absmax_vectors<Avx2>(in, type, shape, maxima);
}

void row_range_avx2(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                    float* maxima) {
  row_range_vectors<Avx2>(in, type, rows, cols, minima, maxima);
}

}  // namespace blockptq::kernels

#endif
