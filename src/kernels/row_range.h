// What the scales of a quantization grid are made from: the largest magnitude of every group of a
// row, the smallest and the largest element of every row.
#pragma once

#include <cstdint>

#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// maxima[g] = max |in| of every group, exact; NaN where the group holds one.
void group_absmax(const void* in, FloatType type, const RowGroups& shape, float* maxima);

/// minima[i], maxima[i]: of row i, NaN left out (infinity and -infinity where nothing else is
/// there). `cols` > 0.
void row_range(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
               float* maxima);

}  // namespace blockptq::kernels
