#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/swiglu_impl.h"

namespace blockptq::kernels {

void swiglu_avx2(const void* gate, const void* up, FloatType type, int64_t count, void* out) {
  swiglu_vectors<Avx2>(gate, up, type, count, out);
}

}  // namespace blockptq::kernels

#endif
