#include "quant/algorithms/nearest.h"

#include <ATen/ATen.h>

#include "quant/algorithms/algorithm.h"
#include "quant/algorithms/slabs.h"

namespace blockptq {

QTensor nearest(const TargetWeight& weight, int bits) {
  check_weight(weight.value());
  return quantize_slabs(weight, bits, [&](const at::Tensor& w_RI, const Slab& /*slab*/) {
    return weight_scales(w_RI, bits);
  });
}

QTensor nearest(const TargetWeight& weight, int bits, const at::Tensor& scales_O) {
  return quantize_slabs(
      weight, bits, [&](const at::Tensor& /*w_RI*/, const Slab& slab) { return slab(scales_O); });
}

}  // namespace blockptq
