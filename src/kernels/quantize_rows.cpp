#include "kernels/quantize_rows.h"

#include "kernels/dispatch.h"
#include "kernels/reference/quantize_rows_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void quantize_rows(const void* in, FloatType type, const RowGroups& shape, int bits,
                   const float* scales, int8_t* codes) {
  BLOCKPTQ_CHOOSE(quantize_rows)(in, type, shape, bits, scales, codes);
}

void fake_quantize_rows(const void* in, FloatType type, const RowGroups& shape, int bits,
                        const float* scales, const RowBounds& bounds, FloatType out_type,
                        void* out) {
  BLOCKPTQ_CHOOSE(fake_quantize_rows)(in, type, shape, bits, scales, bounds, out_type, out);
}

}  // namespace blockptq::kernels
