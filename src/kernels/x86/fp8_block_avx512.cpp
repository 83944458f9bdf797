#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/fp8_block_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

bool decode_fp8_block_avx512(const Fp8BlockMatrix& matrix, int64_t row_begin, int64_t row_end,
                             FloatType type, void* out) {
  return decode_fp8_block_vectors<Avx512>(matrix, row_begin, row_end, type, out);
}

}  // namespace blockptq::kernels

#endif
