// The normalised Walsh-Hadamard transform of rows.
//
// Shapes: rows x order, dense.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// out = in H / sqrt(order), H the Sylvester-Hadamard matrix of that order (a power of two), in
/// fp32, rounded once: stages of sums and differences of elements 1, 2, 4, ... apart, then the
/// factor. `out` has the type of `in` and may be `in`. scratch: 2 * order floats.
void hadamard_rows(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                   float* scratch);

}  // namespace blockptq::kernels
