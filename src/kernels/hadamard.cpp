#include "kernels/hadamard.h"

#include "kernels/dispatch.h"
#include "kernels/reference/hadamard_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void hadamard_rows(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                   float* scratch) {
  BLOCKPTQ_CHOOSE(hadamard_rows)(in, type, rows, order, out, scratch);
}

}  // namespace blockptq::kernels
