#if defined(__x86_64__)

#include "kernels/x86/avx512.h"
#include "kernels/x86/descend_codes_impl.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void descend_codes_avx512(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                          float* gradients, int8_t* codes) {
  descend_codes_vectors<Avx512>(problem, channel_begin, channel_end, gradients, codes);
}

}  // namespace blockptq::kernels

#endif
