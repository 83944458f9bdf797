#include "quant/int_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"
#include "base/size.h"
#include "kernels/int_linear.h"
#include "quant/composed.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

constexpr int64_t kValueBytes = int64_t{32} << 20;  // of dequantized rows at a time

/// Channels of a weight that are dequantized together.
int64_t rows_together(const IntWeight& w_OI, int64_t element_bytes) {
  return std::max<int64_t>(kValueBytes / (element_bytes * w_OI.inputs), 1);
}

/// scale * code of every row, in fp64.
at::Tensor exact_values(const at::Tensor& codes, const at::Tensor& scales) {
  return codes.to(at::kDouble).mul_(scales.to(at::kDouble).view({-1, 1}));
}

}  // namespace

IntWeight IntWeight::rows(int64_t begin, int64_t end) const {
  return {codes.slice(0, begin, end), scales_O.slice(0, begin, end), bits, inputs};
}

at::Tensor IntWeight::unpacked() const {
  if (bits != 4) {
    return codes;
  }
  const at::Tensor pairs = at::stack({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, -1);
  return pairs.flatten(1).narrow(1, 0, inputs).to(at::kChar) - 8;
}

IntWeight as_int8(const QTensor& weight) {
  return {weight.codes_OI.contiguous(), weight.scales_O.contiguous(), 8, weight.codes_OI.size(1)};
}

IntWeight pack(const QTensor& weight) {
  const int64_t outputs = weight.codes_OI.size(0);
  const int64_t inputs = weight.codes_OI.size(1);
  if (weight.bits > 4) {
    return as_int8(weight);
  }
  const at::Tensor codes_OI = weight.codes_OI.contiguous();
  at::Tensor packed = at::empty({outputs, IntWeight::row_bytes(4, inputs)}, at::kByte);
  for (int64_t o = 0; o < outputs; ++o) {
    kernels::pack_int4(codes_OI.const_data_ptr<int8_t>() + o * inputs, inputs,
                       packed.mutable_data_ptr<uint8_t>() + o * packed.size(1));
  }
  return {packed, weight.scales_O.contiguous(), 4, inputs};
}

at::Tensor int_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type) {
  const int64_t outputs = w_OI.codes.size(0);
  BPTQ_ASSERT(x_TI.codes.dim() == 2 && x_TI.codes.size(1) == w_OI.inputs &&
              w_OI.inputs <= int64_t{1} << 17 && x_TI.scales.numel() == x_TI.codes.size(0));
  if (!x_TI.codes.is_cpu()) {
    return composed::int_linear(x_TI, w_OI, type);
  }
  const at::Tensor x_codes = x_TI.codes.contiguous();
  const at::Tensor x_scales = x_TI.scales.contiguous();
  const at::Tensor w_codes = w_OI.codes.contiguous();
  const at::Tensor w_scales = w_OI.scales_O.contiguous();
  const kernels::IntTokens x = {x_codes.const_data_ptr<int8_t>(), x_scales.const_data_ptr<float>(),
                                x_codes.size(0)};
  const kernels::IntWeights w = {w_OI.bits, w_codes.const_data_ptr(),
                                 w_scales.const_data_ptr<float>(), outputs, w_OI.inputs};
  at::Tensor y_TO = at::empty({x.tokens, outputs}, type);
  void* out = y_TO.mutable_data_ptr();
  constexpr int64_t kPanel = kernels::kIntLinearPanel;
  at::parallel_for(0, ceil_div(outputs, kPanel), 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch =
        at::empty({kernels::int_linear_scratch(x.tokens, w.inputs)}, at::kByte);
    kernels::int_linear(x, w, begin * kPanel, std::min(end * kPanel, outputs), float_type(type),
                        out, scratch.mutable_data_ptr());
  });
  return y_TO;
}

at::Tensor dequantized_linear(const at::Tensor& x_TI, const IntWeight& w_OI) {
  const auto values = [&](const IntWeight& rows) {
    return QTensor{rows.unpacked(), rows.scales_O, 8}.dequantize(x_TI.scalar_type());
  };
  const int64_t outputs = w_OI.codes.size(0);
  const int64_t step = rows_together(w_OI, x_TI.element_size());
  if (outputs <= step) {
    return at::linear(x_TI, values(w_OI));
  }
  at::Tensor y_TO = at::empty({x_TI.size(0), outputs}, x_TI.options());
  for (int64_t o = 0; o < outputs; o += step) {
    const IntWeight rows = w_OI.rows(o, std::min(o + step, outputs));
    y_TO.narrow(1, o, rows.codes.size(0)).copy_(at::linear(x_TI, values(rows)));
  }
  return y_TO;
}

at::Tensor value_linear(const QActivation& x_TI, const IntWeight& w_OI, at::ScalarType type) {
  const int64_t tokens = x_TI.codes.size(0);
  const int64_t outputs = w_OI.codes.size(0);
  const int64_t step = rows_together(w_OI, sizeof(double));
  at::Tensor y_TO = at::empty({tokens, outputs}, w_OI.scales_O.options().dtype(type));
  for (int64_t t = 0; t < tokens; t += step) {
    const int64_t last = std::min(t + step, tokens);
    const at::Tensor x = exact_values(x_TI.codes.slice(0, t, last), x_TI.scales.slice(0, t, last));
    for (int64_t o = 0; o < outputs; o += step) {
      const IntWeight rows = w_OI.rows(o, std::min(o + step, outputs));
      y_TO.slice(0, t, last)
          .slice(1, o, o + rows.codes.size(0))
          .copy_(at::linear(x, exact_values(rows.unpacked(), rows.scales_O)));
    }
  }
  return y_TO;
}

}  // namespace blockptq
