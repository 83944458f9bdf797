// Rows of a matrix on a symmetric integer grid with given scales.
//
// code = clamp(round(x / scale), -2^(bits-1), 2^(bits-1) - 1): an IEEE division in fp32, rounded
// half to even. Scales are one per group of columns; `bits` is 2 to 8. Typed buffers need no
// alignment.
#pragma once

#include <cstdint>

#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// int8 codes [rows, cols]; NaN gives the lowest one.
void quantize_rows(const void* in, FloatType type, const RowGroups& shape, int bits,
                   const float* scales, int8_t* codes);

/// Elements are clamped to the bounds of their row first: min(max(x, low), high).
struct RowBounds {
  const float* low = nullptr;  ///< one per row; both nullptr: no bounds
  const float* high = nullptr;
};

/// out = scale * code in fp32, rounded once to `out_type`; NaN stays NaN. `out` may be `in` where
/// the types are the same.
void fake_quantize_rows(const void* in, FloatType type, const RowGroups& shape, int bits,
                        const float* scales, const RowBounds& bounds, FloatType out_type,
                        void* out);

}  // namespace blockptq::kernels
