#include "kernels/swiglu.h"

#include "kernels/dispatch.h"
#include "kernels/reference/swiglu_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void swiglu(const void* gate, const void* up, FloatType type, int64_t count, void* out) {
  BLOCKPTQ_CHOOSE(swiglu)(gate, up, type, count, out);
}

}  // namespace blockptq::kernels
