// Gradients through fake quantization (kernels/quantize_rows.h), straight through the rounding
// (arXiv 1308.3432).
//
// Sums are formed in fp32 or better. `in` has `type`, the gradient of the output `grad_type`.
#pragma once

#include <cstdint>

#include "kernels/quantize_rows.h"
#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Of fake_quantize_rows() without bounds, at fixed scales. With v = in / scale and code = v
/// rounded, clamped to the grid:
///   grad_in (in `type`; nullptr: not wanted) = grad_out where the clamp leaves v as it is, else 0;
///   grad_scales[g] = sum over the group of grad_out * (code - v there, code elsewhere).
void fake_quantize_rows_backward(const void* in, FloatType type, const RowGroups& shape, int bits,
                                 const float* scales, const void* grad_out, FloatType grad_type,
                                 void* grad_in, float* grad_scales);

/// Per row, what flows to its scale and its bounds.
struct BoundedGradients {
  float* scales = nullptr;
  float* low = nullptr;   ///< sum of grad_out where in < low
  float* high = nullptr;  ///< sum of grad_out where in > high
};

/// Of fake_quantize_rows() with bounds, at fixed scales under which no bounded element leaves the
/// grid.
void bounded_rows_backward(const void* in, FloatType type, int64_t rows, int64_t cols,
                           const float* scales, const RowBounds& bounds, const void* grad_out,
                           FloatType grad_type, const BoundedGradients& gradients);

/// Of a function of the groups' largest magnitudes: adds amounts[g] * sign(in), in equal parts, to
/// `grad` (in `type`) where |in| = maxima[g]. Groups of zeros get nothing.
void add_at_maxima(const void* in, FloatType type, const RowGroups& shape, const float* maxima,
                   const float* amounts, void* grad);

}  // namespace blockptq::kernels
