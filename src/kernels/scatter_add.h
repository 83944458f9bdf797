// Weighted addition of rows to chosen rows: what an expert adds to the tokens routed to it.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// out[rows[i], :] += weights[i] * in[i, :] for i in [0, count), rows of dim elements; a fused
/// multiply-add in fp32, rounded to `type` at each call. The rows are distinct. `in` and `out` are
/// dense, of the same type, need no alignment and must not overlap.
void scatter_add_rows(const void* in, FloatType type, const float* weights, const int64_t* rows,
                      int64_t count, int64_t dim, void* out);

}  // namespace blockptq::kernels
