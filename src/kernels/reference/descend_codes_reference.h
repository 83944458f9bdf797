// Scalar specification of kernels/descend_codes.h.
#pragma once

#include "kernels/descend_codes.h"

namespace blockptq::kernels {

void descend_codes_reference(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                             float* gradients, int8_t* codes);

}  // namespace blockptq::kernels
