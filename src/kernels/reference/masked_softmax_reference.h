// Specification of kernels/masked_softmax.h.
#pragma once

#include <cstdint>

#include "kernels/masked_softmax.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// row: scratch for one row, keys rounded up to 16 elements
void masked_softmax_reference(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                              int64_t keys, float scale, const Visibility& visible,
                              FloatType out_type, void* out, float* row);

}  // namespace blockptq::kernels
