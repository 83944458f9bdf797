#include "kernels/descend_codes.h"

#include "kernels/dispatch.h"
#include "kernels/reference/descend_codes_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void descend_codes(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                   float* gradients, int8_t* codes) {
  BLOCKPTQ_CHOOSE(descend_codes)(problem, channel_begin, channel_end, gradients, codes);
}

}  // namespace blockptq::kernels
