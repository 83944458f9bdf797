#include "quant/fused_rows.h"

#include <ATen/ATen.h>

#include <vector>

#include "kernels/fake_quantize_backward.h"
#include "kernels/quantize_rows.h"
#include "kernels/row_range.h"
#include "quant/qtensor.h"
#include "quant/rows.h"

namespace blockptq::fused {
namespace {

float scale_of(float absmax, float factor, int bits) {
  const float scale = absmax * factor / static_cast<float>(q_max(bits));
  return scale == 0 ? 1 : scale;
}

/// The scales of a chunk of rows.
void find_scales(const Rows& x, const Factors& factors, int bits, int64_t row,
                 const kernels::RowGroups& shape, float* scales) {
  kernels::group_absmax(x.row(row), x.type, shape, scales);
  for (int64_t i = 0; i < shape.rows * x.groups; ++i) {
    scales[i] = scale_of(scales[i], factors[row + i / x.groups], bits);
  }
}

}  // namespace

at::Tensor absmax_scales(const at::Tensor& w_OI, int bits, const at::Tensor& factor) {
  const Rows w(w_OI, 0);
  const Factors factors(factor, w.shape.rows);
  at::Tensor scales_O = at::empty({w.shape.rows}, at::kFloat);
  auto* scales = scales_O.mutable_data_ptr<float>();
  for_each_chunk(w, [&](int64_t row, const kernels::RowGroups& shape) {
    find_scales(w, factors, bits, row, shape, scales + row);
  });
  return scales_O;
}

at::Tensor codes(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O) {
  const Rows w(w_OI, 0);
  const at::Tensor dense_scales_O = scales_O.contiguous();
  const auto* scales = dense_scales_O.const_data_ptr<float>();
  at::Tensor codes_OI = at::empty(w_OI.sizes(), at::kChar);
  auto* out = codes_OI.mutable_data_ptr<int8_t>();
  for_each_chunk(w, [&](int64_t row, const kernels::RowGroups& shape) {
    kernels::quantize_rows(w.row(row), w.type, shape, bits, scales + row, out + row * shape.cols);
  });
  return codes_OI;
}

QActivation quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor) {
  const Rows rows(x, group);
  const Factors factors(factor, rows.shape.rows);
  std::vector<int64_t> scale_sizes = x.sizes().vec();
  scale_sizes.back() = rows.groups;
  QActivation out{at::empty(x.sizes(), at::kChar), at::empty(scale_sizes, at::kFloat)};
  auto* codes = out.codes.mutable_data_ptr<int8_t>();
  auto* all_scales = out.scales.mutable_data_ptr<float>();
  for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    float* scales = all_scales + row * rows.groups;
    find_scales(rows, factors, bits, row, shape, scales);
    kernels::quantize_rows(rows.row(row), rows.type, shape, bits, scales, codes + row * shape.cols);
  });
  return out;
}

at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor,
                         at::ScalarType type) {
  const Rows rows(x, group);
  const Factors factors(factor, rows.shape.rows);
  at::Tensor out = at::empty(x.sizes(), type);
  for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    std::vector<float> scales(static_cast<size_t>(shape.rows * rows.groups));
    find_scales(rows, factors, bits, row, shape, scales.data());
    kernels::fake_quantize_rows(rows.row(row), rows.type, shape, bits, scales.data(), {},
                                float_type(type), row_of(out, row, shape.cols));
  });
  return out;
}

Gradients fake_quantize_backward(const at::Tensor& x, int bits, int64_t group,
                                 const at::Tensor& factor, const at::Tensor& grad_out,
                                 bool want_x) {
  const Rows rows(x, group);
  const Rows grads(grad_out, 0);
  const Factors factors(factor, rows.shape.rows);
  at::Tensor grad_x = want_x ? at::empty(x.sizes(), rows.tensor.options()) : at::Tensor();
  at::Tensor grad_factors = at::empty({rows.shape.rows}, at::kFloat);
  auto* row_grads = grad_factors.mutable_data_ptr<float>();
  const auto steps = static_cast<float>(q_max(bits));
  for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    const int64_t groups = shape.rows * rows.groups;
    std::vector<float> maxima(static_cast<size_t>(groups));
    std::vector<float> scales(maxima.size());
    std::vector<float> flow(maxima.size());  // of the scales, then of the maxima
    kernels::group_absmax(rows.row(row), rows.type, shape, maxima.data());
    for (int64_t i = 0; i < groups; ++i) {
      scales[i] = scale_of(maxima[i], factors[row + i / rows.groups], bits);
    }
    void* grad_in = want_x ? row_of(grad_x, row, shape.cols) : nullptr;
    kernels::fake_quantize_rows_backward(rows.row(row), rows.type, shape, bits, scales.data(),
                                         grads.row(row), grads.type, grad_in, flow.data());
    std::fill_n(row_grads + row, shape.rows, 0.0F);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t at = row + i / rows.groups;
      const bool fixed = maxima[i] * factors[at] / steps == 0;  // the scale of zeros is 1
      row_grads[at] += fixed ? 0 : flow[i] * maxima[i] / steps;
      flow[i] = fixed ? 0 : flow[i] * factors[at] / steps;
    }
    if (want_x) {
      kernels::add_at_maxima(rows.row(row), rows.type, shape, maxima.data(), flow.data(), grad_in);
    }
  });
  const at::Tensor grad_factor = factor.numel() == 1 ? grad_factors.sum() : grad_factors;
  return {want_x ? grad_x.to(x.scalar_type()) : grad_x, grad_factor.view(factor.sizes())};
}

}  // namespace blockptq::fused
