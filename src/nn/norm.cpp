#include "nn/norm.h"

namespace blockptq::nn {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_D, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor inverse = wide.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return (wide * inverse * weight_D).to(x.scalar_type());
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps) {
  return at::layer_norm(x.to(at::kFloat), weight_D.sizes(), weight_D, bias_D, eps)
      .to(x.scalar_type());
}

}  // namespace blockptq::nn
