// RMSNorm (arXiv 1910.07467) of rows of a matrix, in one read of memory per row.
//
// Shapes: count rows of dim elements.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// out[i, :] = in[rows[i], :] / sqrt(mean(in[rows[i], :]^2) + eps) * weight, computed in fp32 and
/// rounded once.
///
/// `in` has rows `in_stride` elements apart, so it may be some columns of a wider matrix; `rows`
/// (null: 0 .. count-1) may repeat. `weight` has dim elements. `out` is dense, of the same type,
/// and may be `in` where rows is null and in_stride is dim. Typed buffers need no alignment.
void rms_norm(const void* in, FloatType type, int64_t in_stride, const int64_t* rows, int64_t count,
              int64_t dim, const float* weight, double eps, void* out);

}  // namespace blockptq::kernels
