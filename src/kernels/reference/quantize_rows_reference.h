// Specification of kernels/quantize_rows.h.
#pragma once

#include <cstdint>

#include "kernels/quantize_rows.h"
#include "kernels/row_groups.h"
#include "kernels/types.h"

namespace blockptq::kernels {

void quantize_rows_reference(const void* in, FloatType type, const RowGroups& shape, int bits,
                             const float* scales, int8_t* codes);

void fake_quantize_rows_reference(const void* in, FloatType type, const RowGroups& shape, int bits,
                                  const float* scales, const RowBounds& bounds, FloatType out_type,
                                  void* out);

}  // namespace blockptq::kernels
