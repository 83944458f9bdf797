#include "nn/scatter_add.h"

#include <ATen/ATen.h>

#include "kernels/scatter_add.h"
#include "nn/fused.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::nn {

void scatter_add(at::Tensor& out_ND, const at::Tensor& rows_T, const at::Tensor& weights_T,
                 const at::Tensor& y_TD) {
  if (!can_fuse(y_TD)) {
    out_ND.index_add_(0, rows_T, (y_TD * weights_T.unsqueeze(1)).to(out_ND.scalar_type()));
    return;
  }
  const at::Tensor y = y_TD.contiguous();
  const int64_t dim = y.size(1);
  const auto type = float_type(y.scalar_type());
  const auto* rows = rows_T.const_data_ptr<int64_t>();
  const auto* weights = weights_T.const_data_ptr<float>();
  const void* in = y.const_data_ptr();
  void* out = out_ND.mutable_data_ptr();
  parallel_rows(y.size(0), dim, [&](int64_t begin, int64_t end) {
    kernels::scatter_add_rows(at_element(in, begin * dim, kernels::element_size(type)), type,
                              weights + begin, rows + begin, end - begin, dim, out);
  });
}

}  // namespace blockptq::nn
