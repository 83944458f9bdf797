// Specification of kernels/cross_entropy.h.
#pragma once

#include <cstdint>

#include "kernels/cross_entropy.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void accumulate_softmax_reference(const void* logits, FloatType type, int64_t tokens, int64_t width,
                                  int64_t stride, SoftmaxStats* stats);

}  // namespace blockptq::kernels
