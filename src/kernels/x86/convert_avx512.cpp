#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/convert_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void convert_avx512(const void* in, FloatType in_type, int64_t count, FloatType out_type,
                    void* out) {
  convert_vectors<Avx512>(in, in_type, count, out_type, out);
}

}  // namespace blockptq::kernels

#endif
