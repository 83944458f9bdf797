#include "kernels/row_range.h"

#include "kernels/dispatch.h"
#include "kernels/reference/row_range_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void group_absmax(const void* in, FloatType type, const RowGroups& shape, float* maxima) {
  BLOCKPTQ_CHOOSE(group_absmax)(in, type, shape, maxima);
}

void row_range(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
               float* maxima) {
  BLOCKPTQ_CHOOSE(row_range)(in, type, rows, cols, minima, maxima);
}

}  // namespace blockptq::kernels
