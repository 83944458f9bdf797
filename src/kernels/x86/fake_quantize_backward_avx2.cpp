#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/fake_quantize_backward_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void fake_quantize_rows_backward_avx2(const void* in, FloatType type, const RowGroups& shape,
                                      int bits, const float* scales, const void* grad_out,
                                      FloatType grad_type, void* grad_in, float* grad_scales) {
  fake_quantize_rows_backward_vectors<Avx2>(in, type, shape, bits, scales, grad_out, grad_type,
                                            grad_in, grad_scales);
}

void bounded_rows_backward_avx2(const void* in, FloatType type, int64_t rows, int64_t cols,
                                const float* scales, const RowBounds& bounds, const void* grad_out,
                                FloatType grad_type, const BoundedGradients& gradients) {
  bounded_rows_backward_vectors<Avx2>(in, type, rows, cols, scales, bounds, grad_out, grad_type,
                                      gradients);
}

void add_at_maxima_avx2(const void* in, FloatType type, const RowGroups& shape, const float* maxima,
                        const float* amounts, void* grad) {
  add_at_maxima_vectors<Avx2>(in, type, shape, maxima, amounts, grad);
}

}  // namespace blockptq::kernels

#endif
