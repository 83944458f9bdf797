#include "quant/composed.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "quant/qtensor.h"

namespace blockptq::composed {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rounds half to even; the gradient passes as if it were the identity.
struct RoundStraightThrough : torch::autograd::Function<RoundStraightThrough> {
  static at::Tensor forward(AutogradContext* /*context*/, const at::Tensor& x) {
    return at::round(x);
  }
  static variable_list backward(AutogradContext* /*context*/, const variable_list& gradients) {
    return gradients;
  }
};

/// [..., I] to [..., G, group], zeros filling the last group up.
at::Tensor in_groups(const at::Tensor& x, int64_t group) {
  const int64_t width = group == 0 ? x.size(-1) : group;
  const int64_t groups = (x.size(-1) + width - 1) / width;
  const at::Tensor padded = at::constant_pad_nd(x, {0, groups * width - x.size(-1)});
  return padded.unflatten(-1, {groups, width});
}

/// The way back, to I features.
at::Tensor out_of_groups(const at::Tensor& groups, int64_t features) {
  return groups.flatten(-2).narrow(-1, 0, features);
}

/// Filled up with zeros to multiples of 32: cuBLASLt takes no other sizes than multiples of 8 and
/// more than 16 rows.
at::Tensor padded(const at::Tensor& matrix) {
  return at::constant_pad_nd(matrix, {0, -matrix.size(1) & 31, 0, -matrix.size(0) & 31});
}

at::Tensor one_where_zero(const at::Tensor& scales) {
  return at::where(scales == 0, at::ones_like(scales), scales);
}

}  // namespace

at::Tensor scales(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor) {
  const at::Tensor maxima = in_groups(x.to(at::kFloat), group).abs().amax(-1);
  return one_where_zero(maxima * factor / static_cast<double>(q_max(bits)));
}

at::Tensor codes(const at::Tensor& x, int bits, int64_t group, const at::Tensor& scales) {
  const at::Tensor quotient = in_groups(x.to(at::kFloat), group) / scales.unsqueeze(-1);
  const at::Tensor rounded = RoundStraightThrough::apply(quotient);
  return out_of_groups(rounded.clamp(q_min(bits), q_max(bits)), x.size(-1));
}

at::Tensor values(const at::Tensor& codes, int64_t group, const at::Tensor& scales) {
  return out_of_groups(in_groups(codes, group) * scales.unsqueeze(-1), codes.size(-1));
}

at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor,
                         at::ScalarType type) {
  const at::Tensor s = scales(x, bits, group, factor);
  return values(codes(x, bits, group, s), group, s).to(type);
}

at::Tensor fake_quantize_clamped_weight(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                                        const at::Tensor& high_O, at::ScalarType type) {
  const at::Tensor wide = w_OI.to(at::kFloat);
  const auto [min_O, max_O] = at::aminmax(wide, /*dim=*/1);
  const at::Tensor lowest_O = low_O * min_O;
  const at::Tensor highest_O = high_O * max_O;
  // The clamped row reaches from one of these to the other.
  const at::Tensor bottom_O = at::clamp(min_O, lowest_O, highest_O);
  const at::Tensor top_O = at::clamp(max_O, lowest_O, highest_O);
  const at::Tensor absmax_O = at::maximum(top_O, -bottom_O);
  const at::Tensor scales_O1 =
      one_where_zero(absmax_O / static_cast<double>(q_max(bits))).unsqueeze(1);
  const at::Tensor clamped_OI = at::clamp(wide, lowest_O.unsqueeze(1), highest_O.unsqueeze(1));
  return values(codes(clamped_OI, bits, 0, scales_O1), 0, scales_O1).to(type);
}

at::Tensor int_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type) {
  const at::Tensor sums_TO = at::_int_mm(padded(x_TI.codes), padded(w_OI.unpacked()).t())
                                 .narrow(0, 0, x_TI.codes.size(0))
                                 .narrow(1, 0, w_OI.codes.size(0));
  const at::Tensor scales_TO = x_TI.scales.to(at::kDouble).reshape({-1, 1}) * w_OI.scales_O;
  return (sums_TO * scales_TO).to(at::kFloat).to(type);
}

at::Tensor hadamard(const at::Tensor& x) {
  const int64_t order = x.size(-1);
  at::Tensor y = x.to(at::kFloat);
  for (int64_t step = 1; step < order; step *= 2) {
    const at::Tensor pairs = y.unflatten(-1, {order / (2 * step), 2, step});
    const at::Tensor first = pairs.select(-2, 0);
    const at::Tensor second = pairs.select(-2, 1);
    y = at::stack({first + second, first - second}, -2).flatten(-3);
  }
  return (y * static_cast<float>(1 / std::sqrt(static_cast<double>(order)))).to(x.scalar_type());
}

}  // namespace blockptq::composed
