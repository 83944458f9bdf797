// Specification of kernels/row_range.h.
#pragma once

#include <cstdint>

#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void group_absmax_reference(const void* in, FloatType type, const RowGroups& shape, float* maxima);

void row_range_reference(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                         float* maxima);

}  // namespace blockptq::kernels
