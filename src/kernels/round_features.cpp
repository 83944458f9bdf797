#include "kernels/round_features.h"

#include "kernels/dispatch.h"
#include "kernels/reference/round_features_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {

void round_features(const FeatureRounding& rounding, int64_t channel_begin, int64_t channel_end) {
  BLOCKPTQ_CHOOSE(round_features)(rounding, channel_begin, channel_end);
}

}  // namespace blockptq::kernels
