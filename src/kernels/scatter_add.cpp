#include "kernels/scatter_add.h"

#include "kernels/dispatch.h"
#include "kernels/reference/scatter_add_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void scatter_add_rows(const void* in, FloatType type, const float* weights, const int64_t* rows,
                      int64_t count, int64_t dim, void* out) {
  BLOCKPTQ_CHOOSE(scatter_add_rows)(in, type, weights, rows, count, dim, out);
}

}  // namespace blockptq::kernels
