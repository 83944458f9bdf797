#include "kernels/fp8_block.h"

#include "kernels/dispatch.h"
#include "kernels/reference/fp8_block_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

bool decode_fp8_block(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                      FloatType type, void* out) {
  return BLOCKPTQ_CHOOSE(decode_fp8_block)(matrix, row_begin, row_end, type, out);
}

}  // namespace blockptq::kernels
