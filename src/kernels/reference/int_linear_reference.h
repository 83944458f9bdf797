// Specification of kernels/int_linear.h.
#pragma once

#include <cstdint>

#include "kernels/int_linear.h"

namespace blockptq::kernels {

void int_linear_reference(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                          FloatType type, void* out, void* scratch);

}  // namespace blockptq::kernels
