#include "quant/qtensor.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/int_weights.h"
#include "quant/composed.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq {

at::Tensor QTensor::dequantize(at::ScalarType type) const {
  BPTQ_ASSERT(codes_OI.dim() == 2 && codes_OI.scalar_type() == at::kChar &&
              scales_O.scalar_type() == at::kFloat && scales_O.numel() == codes_OI.size(0));
  if (!codes_OI.is_cpu()) {
    return composed::values(codes_OI.to(at::kFloat), 0, scales_O.unsqueeze(1)).to(type);
  }
  const int64_t cols = codes_OI.size(1);
  const at::Tensor codes = codes_OI.contiguous();
  const at::Tensor scales = scales_O.contiguous();
  at::Tensor out_OI = at::empty(codes.sizes(), codes.options().dtype(type));
  const kernels::IntMatrix matrix = {.codes = codes.const_data_ptr(),
                                     .scales = scales.const_data_ptr<float>(),
                                     .rows = codes.size(0),
                                     .cols = cols,
                                     .group_size = cols};
  void* out = out_OI.mutable_data_ptr();
  parallel_rows(matrix.rows, cols, [&](int64_t begin, int64_t end) {
    kernels::decode_int(matrix, begin, end, float_type(type),
                        at_element(out, begin * cols, c10::elementSize(type)));
  });
  return out_OI;
}

}  // namespace blockptq
