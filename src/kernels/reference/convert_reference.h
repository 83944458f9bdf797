// Specification of kernels/convert.h.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

void convert_reference(const void* in, FloatType in_type, int64_t count, FloatType out_type,
                       void* out);

}  // namespace blockptq::kernels
