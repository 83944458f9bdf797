#include "quant/clamped_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/fake_quantize_backward.h"
#include "kernels/quantize_rows.h"
#include "kernels/row_range.h"
#include "quant/qtensor.h"
#include "quant/rows.h"

namespace blockptq::fused {
namespace {

/// What a clamped value depends on besides itself.
struct Source {
  bool low;
  bool high;
};

/// One row: its range, its bounds and its grid.
struct ClampedRow {
  float min;
  float max;
  float low;  ///< bounds
  float high;
  float bottom;  ///< the range of the clamped row
  float top;
  float scale;

  ClampedRow(float row_min, float row_max, float low_factor, float high_factor, int bits)
      : min(row_min),
        max(row_max),
        low(low_factor * min),
        high(high_factor * max),
        bottom(std::min(std::max(min, low), high)),
        top(std::min(std::max(max, low), high)),
        scale(std::max(top, -bottom) / static_cast<float>(q_max(bits))) {
    scale = scale == 0 ? 1 : scale;
  }
  bool is_zero() const { return top == 0 && bottom == 0; }
  Source source_of(float value) const {
    const bool from_high = std::max(value, low) > high;
    return {.low = !from_high && value < low, .high = from_high};
  }
};

/// The rows of a chunk and what the kernels ask for.
struct Chunk {
  std::vector<ClampedRow> rows;
  std::vector<float> low;
  std::vector<float> high;
  std::vector<float> scales;

  Chunk(const Rows& w, int bits, const Factors& low_factors, const Factors& high_factors,
        int64_t begin, int64_t count) {
    std::vector<float> minima(static_cast<size_t>(count));
    std::vector<float> maxima(minima.size());
    kernels::row_range(w.row(begin), w.type, count, w.shape.cols, minima.data(), maxima.data());
    for (int64_t i = 0; i < count; ++i) {
      const ClampedRow& row = rows.emplace_back(minima[i], maxima[i], low_factors[begin + i],
                                                high_factors[begin + i], bits);
      low.push_back(row.low);
      high.push_back(row.high);
      scales.push_back(row.scale);
    }
  }
  kernels::RowBounds bounds() const { return {.low = low.data(), .high = high.data()}; }
};

/// Gradients of the two factors of a row from those of its scale and of the elements at its bounds.
struct FactorGradients {
  float low;
  float high;

  FactorGradients(const ClampedRow& row, int bits, float to_scale, float below, float above) {
    const bool crossed = row.low > row.high;  // everything is at the upper bound
    float to_low = crossed ? 0 : below;
    float to_high = crossed ? below + above : above;
    const float to_absmax = row.is_zero() ? 0 : to_scale / static_cast<float>(q_max(bits));
    const float share_of_top = row.top > -row.bottom ? 1 : row.top == -row.bottom ? 0.5F : 0;
    const auto flow = [&](Source source, float gradient) {
      to_low += source.low ? gradient : 0;
      to_high += source.high ? gradient : 0;
    };
    flow(row.source_of(row.max), share_of_top * to_absmax);
    flow(row.source_of(row.min), (share_of_top - 1) * to_absmax);
    low = to_low * row.min;
    high = to_high * row.max;
  }
};

}  // namespace

at::Tensor fake_quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                                 const at::Tensor& high_O, at::ScalarType type) {
  const Rows w(w_OI, 0);
  const Factors low(low_O, w.shape.rows);
  const Factors high(high_O, w.shape.rows);
  at::Tensor out_OI = at::empty(w_OI.sizes(), type);
  for_each_chunk(w, [&](int64_t row, const kernels::RowGroups& shape) {
    const Chunk chunk(w, bits, low, high, row, shape.rows);
    kernels::fake_quantize_rows(w.row(row), w.type, shape, bits, chunk.scales.data(),
                                chunk.bounds(), float_type(type), row_of(out_OI, row, shape.cols));
  });
  return out_OI;
}

ClampGradients fake_quantize_clamped_backward(const at::Tensor& w_OI, int bits,
                                              const at::Tensor& low_O, const at::Tensor& high_O,
                                              const at::Tensor& grad_out_OI) {
  const Rows w(w_OI, 0);
  const Rows grads(grad_out_OI, 0);
  const Factors low(low_O, w.shape.rows);
  const Factors high(high_O, w.shape.rows);
  ClampGradients out = {at::empty(low_O.sizes(), at::kFloat),
                        at::empty(high_O.sizes(), at::kFloat)};
  auto* grad_low = out.low.mutable_data_ptr<float>();
  auto* grad_high = out.high.mutable_data_ptr<float>();
  for_each_chunk(w, [&](int64_t begin, const kernels::RowGroups& shape) {
    const Chunk chunk(w, bits, low, high, begin, shape.rows);
    std::vector<float> to_scales(chunk.rows.size());
    std::vector<float> below(chunk.rows.size());
    std::vector<float> above(chunk.rows.size());
    kernels::bounded_rows_backward(w.row(begin), w.type, shape.rows, shape.cols,
                                   chunk.scales.data(), chunk.bounds(), grads.row(begin),
                                   grads.type, {to_scales.data(), below.data(), above.data()});
    for (size_t i = 0; i < chunk.rows.size(); ++i) {
      const FactorGradients row(chunk.rows[i], bits, to_scales[i], below[i], above[i]);
      grad_low[begin + static_cast<int64_t>(i)] = row.low;
      grad_high[begin + static_cast<int64_t>(i)] = row.high;
    }
  });
  return out;
}

}  // namespace blockptq::fused
