#include "quant/algorithms/nearest.h"

#include <ATen/ATen.h>

#include "quant/algorithms/algorithm.h"
#include "quant/grid.h"

namespace blockptq {

QTensor nearest(const at::Tensor& w_OI, int bits) {
  check_weight(w_OI);
  return quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
}

}  // namespace blockptq
