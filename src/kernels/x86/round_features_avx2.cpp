#if defined(__x86_64__)

#include "kernels/x86/avx2.h"
#include "kernels/x86/kernels.h"
#include "kernels/x86/round_features_impl.h"

namespace blockptq::kernels {

void round_features_avx2(const FeatureRounding& rounding, int64_t channel_begin,
                         int64_t channel_end) {
  round_features_vectors<Avx2>(rounding, channel_begin, channel_end);
}

}  // namespace blockptq::kernels

#endif
