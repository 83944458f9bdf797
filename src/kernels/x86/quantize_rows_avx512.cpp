#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/quantize_rows_impl.h"

namespace blockptq::kernels {

void quantize_rows_avx512(const void* in, FloatType type, const RowGroups& shape, int bits,
                          const float* scales, int8_t* codes) {
  quantize_rows_vectors<Avx512>(in, type, shape, bits, scales, codes);
}

void fake_quantize_rows_avx512(const void* in, FloatType type, const RowGroups& shape, int bits,
                               const float* scales, const RowBounds& bounds, FloatType out_type,
                               void* out) {
  fake_quantize_rows_vectors<Avx512>(in, type, shape, bits, scales, bounds, out_type, out);
}

}  // namespace blockptq::kernels

#endif
