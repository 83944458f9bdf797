#include "kernels/fake_quantize_backward.h"

#include "kernels/dispatch.h"
#include "kernels/reference/fake_quantize_backward_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void fake_quantize_rows_backward(const void* in, FloatType type, const RowGroups& shape, int bits,
                                 const float* scales, const void* grad_out, FloatType grad_type,
                                 void* grad_in, float* grad_scales) {
  BLOCKPTQ_CHOOSE(fake_quantize_rows_backward)
  (in, type, shape, bits, scales, grad_out, grad_type, grad_in, grad_scales);
}

void bounded_rows_backward(const void* in, FloatType type, int64_t rows, int64_t cols,
                           const float* scales, const RowBounds& bounds, const void* grad_out,
                           FloatType grad_type, const BoundedGradients& gradients) {
  BLOCKPTQ_CHOOSE(bounded_rows_backward)
  (in, type, rows, cols, scales, bounds, grad_out, grad_type, gradients);
}

void add_at_maxima(const void* in, FloatType type, const RowGroups& shape, const float* maxima,
                   const float* amounts, void* grad) {
  BLOCKPTQ_CHOOSE(add_at_maxima)(in, type, shape, maxima, amounts, grad);
}

}  // namespace blockptq::kernels
