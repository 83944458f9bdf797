// Specification of kernels/fake_quantize_backward.h.
#pragma once

#include <cstdint>

#include "kernels/fake_quantize_backward.h"

namespace blockptq::kernels {

void fake_quantize_rows_backward_reference(const void* in, FloatType type, const RowGroups& shape,
                                           int bits, const float* scales, const void* grad_out,
                                           FloatType grad_type, void* grad_in, float* grad_scales);

void bounded_rows_backward_reference(const void* in, FloatType type, int64_t rows, int64_t cols,
                                     const float* scales, const RowBounds& bounds,
                                     const void* grad_out, FloatType grad_type,
                                     const BoundedGradients& gradients);

void add_at_maxima_reference(const void* in, FloatType type, const RowGroups& shape,
                             const float* maxima, const float* amounts, void* grad);

}  // namespace blockptq::kernels
