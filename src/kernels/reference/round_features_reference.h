// Scalar specification of kernels/round_features.h.
#pragma once

#include "kernels/round_features.h"

namespace blockptq::kernels {

void round_features_reference(const FeatureRounding& rounding, int64_t channel_begin,
                              int64_t channel_end);

}  // namespace blockptq::kernels
