#include "kernels/int_weights.h"

#include "kernels/dispatch.h"
#include "kernels/reference/int_weights_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void decode_int(const IntMatrix& matrix, int64_t row_begin, int64_t row_end, FloatType type,
                void* out) {
  BLOCKPTQ_CHOOSE(decode_int)(matrix, row_begin, row_end, type, out);
}

}  // namespace blockptq::kernels
