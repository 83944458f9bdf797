// Specification of kernels/swiglu.h.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

void swiglu_reference(const void* gate, const void* up, FloatType type, int64_t count, void* out);

}  // namespace blockptq::kernels
