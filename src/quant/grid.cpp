#include "quant/grid.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "base/error.h"
#include "quant/composed.h"
#include "quant/fused_rows.h"

namespace blockptq {
namespace {

at::Tensor one_like(const at::Tensor& x, double value) {
  return at::full({1}, value, x.options().dtype(at::kFloat));
}

void check_bits(int bits) {
  BPTQ_ASSERT(bits >= 2 && bits <= 8);
}

}  // namespace

at::Tensor weight_scales(const at::Tensor& w_OI, int bits, const at::Tensor& clip_O) {
  check_bits(bits);
  const c10::NoGradGuard no_grad;
  const at::Tensor factor = clip_O.defined() ? clip_O : one_like(w_OI, 1);
  return w_OI.is_cpu() ? fused::absmax_scales(w_OI, bits, factor)
                       : composed::scales(w_OI, bits, 0, factor.unsqueeze(1)).squeeze(1);
}

QTensor quantize_weight(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O) {
  check_bits(bits);
  BPTQ_ASSERT(w_OI.dim() == 2 && scales_O.scalar_type() == at::kFloat &&
              scales_O.sizes() == w_OI.sizes().slice(0, 1));
  const c10::NoGradGuard no_grad;
  const at::Tensor codes_OI =
      w_OI.is_cpu() ? fused::codes(w_OI, bits, scales_O)
                    : composed::codes(w_OI, bits, 0, scales_O.unsqueeze(1)).to(at::kChar);
  return {codes_OI, scales_O.detach(), bits};
}

QActivation quantize_activation(const at::Tensor& x, int bits, int64_t group, double alpha) {
  check_bits(bits);
  const c10::NoGradGuard no_grad;
  const at::Tensor factor = one_like(x, alpha);
  if (x.is_cpu()) {
    return fused::quantize(x, bits, group, factor);
  }
  const at::Tensor scales = composed::scales(x, bits, group, factor);
  return {composed::codes(x, bits, group, scales).to(at::kChar), scales};
}

at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, double alpha) {
  check_bits(bits);
  const c10::NoGradGuard no_grad;
  const at::Tensor factor = one_like(x, alpha);
  return x.is_cpu() ? fused::fake_quantize(x, bits, group, factor, x.scalar_type())
                    : composed::fake_quantize(x, bits, group, factor, x.scalar_type());
}

}  // namespace blockptq
