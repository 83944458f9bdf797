#include "kernels/convert.h"

#include "kernels/dispatch.h"
#include "kernels/reference/convert_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void convert(const void* in, FloatType in_type, int64_t count, FloatType out_type, void* out) {
  BLOCKPTQ_CHOOSE(convert)(in, in_type, count, out_type, out);
}

}  // namespace blockptq::kernels
