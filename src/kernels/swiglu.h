// SwiGLU (arXiv 2002.05202): the gated activation between the projections of an MLP.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// out[i] = gate[i] * sigmoid(gate[i]) * up[i] for i in [0, count), computed in fp32 and rounded
/// once. Gates below -88, where gate * sigmoid(gate) is above -1e-36, count as having 0 there; NaN
/// stays NaN. `out` may be `gate` or `up`. Buffers need no alignment.
void swiglu(const void* gate, const void* up, FloatType type, int64_t count, void* out);

}  // namespace blockptq::kernels
