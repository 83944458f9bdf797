#include "nn/norm.h"

#include <ATen/ATen.h>

#include "kernels/rms_norm.h"
#include "nn/fused.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::nn {
namespace {

at::Tensor composed_rms_norm(const at::Tensor& x, const at::Tensor& weight_D, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse = (wide.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (wide * inverse * weight_D).to(x.scalar_type());
}

/// Rows of x_ND (all, if `rows` is null), whose elements are contiguous.
at::Tensor fused_rms_norm(const at::Tensor& x_ND, const int64_t* rows, int64_t count,
                          const at::Tensor& weight_D, double eps) {
  const int64_t dim = x_ND.size(1);
  const auto type = float_type(x_ND.scalar_type());
  const int64_t bytes = kernels::element_size(type);
  at::Tensor out_TD = at::empty({count, dim}, x_ND.options());
  const void* in = x_ND.const_data_ptr();
  void* out = out_TD.mutable_data_ptr();
  parallel_rows(count, dim, [&](int64_t begin, int64_t end) {
    const int64_t first = rows == nullptr ? begin * x_ND.stride(0) : 0;
    kernels::rms_norm(at_element(in, first, bytes), type, x_ND.stride(0),
                      rows == nullptr ? nullptr : rows + begin, end - begin, dim,
                      weight_D.const_data_ptr<float>(), eps, at_element(out, begin * dim, bytes));
  });
  return out_TD;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_D, double eps) {
  if (!can_fuse(x) || x.dim() != 2 || x.stride(1) != 1) {
    return composed_rms_norm(x, weight_D, eps);
  }
  return fused_rms_norm(x, nullptr, x.size(0), weight_D, eps);
}

at::Tensor gather_rms_norm(const at::Tensor& x_ND, const at::Tensor& rows_T,
                           const at::Tensor& weight_D, double eps) {
  if (!can_fuse(x_ND) || x_ND.stride(1) != 1) {
    return composed_rms_norm(x_ND.index_select(0, rows_T), weight_D, eps);
  }
  return fused_rms_norm(x_ND, rows_T.const_data_ptr<int64_t>(), rows_T.size(0), weight_D, eps);
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps) {
  return at::layer_norm(x.to(at::kFloat), weight_D.sizes(), weight_D, bias_D, eps)
      .to(x.scalar_type());
}

}  // namespace blockptq::nn
