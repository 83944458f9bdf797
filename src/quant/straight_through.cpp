#include "quant/straight_through.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <bit>
#include <vector>

#include "base/error.h"
#include "kernels/hadamard.h"
#include "quant/clamped_rows.h"
#include "quant/composed.h"
#include "quant/fused_rows.h"
#include "quant/qtensor.h"
#include "quant/rows.h"

namespace blockptq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Rows times a factor on their largest magnitude, one for all or one per row.
struct FusedFakeQuantize : Function<FusedFakeQuantize> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t bits,
                            int64_t group, const at::Tensor& factor, at::ScalarType type) {
    context->save_for_backward({x, factor});
    context->saved_data["bits"] = bits;
    context->saved_data["group"] = group;
    return fused::fake_quantize(x, static_cast<int>(bits), group, factor, type);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto bits = static_cast<int>(context->saved_data["bits"].toInt());
    const fused::Gradients flow =
        fused::fake_quantize_backward(saved[0], bits, context->saved_data["group"].toInt(),
                                      saved[1], gradients[0], context->needs_input_grad(0));
    return {flow.x, {}, {}, flow.factor, {}};
  }
};

struct FusedClampedWeight : Function<FusedClampedWeight> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& w_OI, int64_t bits,
                            const at::Tensor& low_O, const at::Tensor& high_O,
                            at::ScalarType type) {
    context->save_for_backward({w_OI, low_O, high_O});
    context->saved_data["bits"] = bits;
    return fused::fake_quantize_clamped(w_OI, static_cast<int>(bits), low_O, high_O, type);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto bits = static_cast<int>(context->saved_data["bits"].toInt());
    const fused::ClampGradients flow =
        fused::fake_quantize_clamped_backward(saved[0], bits, saved[1], saved[2], gradients[0]);
    return {{}, {}, flow.low, flow.high, {}};
  }
};

at::Tensor fused_hadamard(const at::Tensor& x) {
  const fused::Rows rows(x, 0);
  at::Tensor out = at::empty(x.sizes(), rows.tensor.options());
  fused::for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    std::vector<float> scratch(static_cast<size_t>(2 * shape.cols));
    kernels::hadamard_rows(rows.row(row), rows.type, shape.rows, shape.cols,
                           fused::row_of(out, row, shape.cols), scratch.data());
  });
  return out.to(x.scalar_type());
}

struct FusedHadamard : Function<FusedHadamard> {
  static at::Tensor forward(AutogradContext* /*context*/, const at::Tensor& x) {
    return fused_hadamard(x);
  }
  static variable_list backward(AutogradContext* /*context*/, const variable_list& gradients) {
    return {fused_hadamard(gradients[0])};
  }
};

void check_factor(const at::Tensor& factor, int64_t count) {
  BPTQ_ASSERT(factor.scalar_type() == at::kFloat && factor.numel() == count);
}

}  // namespace

at::Tensor fake_quantize_st(const at::Tensor& x, int bits, int64_t group, const at::Tensor& alpha) {
  check_factor(alpha, 1);
  return x.is_cpu() ? FusedFakeQuantize::apply(x, bits, group, alpha, x.scalar_type())
                    : composed::fake_quantize(x, bits, group, alpha.reshape({}), x.scalar_type());
}

at::Tensor fake_quantize_weight_st(const at::Tensor& w_OI, int bits, const at::Tensor& clip_O,
                                   at::ScalarType type) {
  check_factor(clip_O, w_OI.size(0));
  const at::Tensor w = w_OI.detach();
  return w.is_cpu() ? FusedFakeQuantize::apply(w, bits, 0, clip_O, type)
                    : composed::fake_quantize(w, bits, 0, clip_O.unsqueeze(1), type);
}

at::Tensor fake_quantize_clamped_weight_st(const at::Tensor& w_OI, int bits,
                                           const at::Tensor& low_O, const at::Tensor& high_O,
                                           at::ScalarType type) {
  check_factor(low_O, w_OI.size(0));
  check_factor(high_O, w_OI.size(0));
  const at::Tensor w = w_OI.detach();
  return w.is_cpu() ? FusedClampedWeight::apply(w, bits, low_O, high_O, type)
                    : composed::fake_quantize_clamped_weight(w, bits, low_O, high_O, type);
}

at::Tensor hadamard(const at::Tensor& x) {
  const int64_t order = x.size(-1);
  check(order > 0 && std::has_single_bit(static_cast<uint64_t>(order)),
        "a Hadamard rotation needs a power of two of features, found {}", order);
  return x.is_cpu() ? FusedHadamard::apply(x) : composed::hadamard(x);
}

}  // namespace blockptq
