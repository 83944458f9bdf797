#include "kernels/reference/fake_quantize_backward_reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

/// Calls visit(group, element, row) for every element.
template <typename Visit>
void for_each_element(const RowGroups& shape, const Visit& visit) {
  const int64_t groups = (shape.cols + shape.group - 1) / shape.group;
  for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
    visit(i / shape.cols * groups + i % shape.cols / shape.group, i, i / shape.cols);
  }
}

std::vector<double> zeros(int64_t count) {
  return std::vector<double>(static_cast<size_t>(count));
}

}  // namespace

void fake_quantize_rows_backward_reference(const void* in, FloatType type, const RowGroups& shape,
                                           int bits, const float* scales, const void* grad_out,
                                           FloatType grad_type, void* grad_in, float* grad_scales) {
  const auto q_max = static_cast<float>((1 << (bits - 1)) - 1);
  std::vector<double> sums = zeros(shape.rows * ((shape.cols + shape.group - 1) / shape.group));
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(grad_type, [&](auto grad_constant) {
      constexpr FloatType kIn = decltype(in_constant)::value;
      for_each_element(shape, [&](int64_t group, int64_t i, int64_t /*row*/) {
        const float quotient = load_element<kIn>(in, i) / scales[group];
        const float rounded = std::nearbyint(quotient);
        const float code = std::clamp(rounded, -q_max - 1, q_max);
        const bool outside = rounded < -q_max - 1 || rounded > q_max;
        const float gradient = load_element<decltype(grad_constant)::value>(grad_out, i);
        sums[static_cast<size_t>(group)] += gradient * (outside ? code : code - quotient);
        if (grad_in != nullptr) {
          store_element<kIn>(outside ? 0 : gradient, grad_in, i);
        }
      });
    });
  });
  std::copy(sums.begin(), sums.end(), grad_scales);
}

void bounded_rows_backward_reference(const void* in, FloatType type, int64_t rows, int64_t cols,
                                     const float* scales, const RowBounds& bounds,
                                     const void* grad_out, FloatType grad_type,
                                     const BoundedGradients& gradients) {
  std::vector<double> scale_sums = zeros(rows);
  std::vector<double> low_sums = zeros(rows);
  std::vector<double> high_sums = zeros(rows);
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(grad_type, [&](auto grad_constant) {
      for_each_element({rows, cols, cols}, [&](int64_t /*group*/, int64_t i, int64_t row) {
        const float x = load_element<decltype(in_constant)::value>(in, i);
        const float gradient = load_element<decltype(grad_constant)::value>(grad_out, i);
        const float low = bounds.low[row];
        const float high = bounds.high[row];
        const float quotient = std::min(std::max(x, low), high) / scales[row];
        const auto index = static_cast<size_t>(row);
        scale_sums[index] += gradient * (std::nearbyint(quotient) - quotient);
        low_sums[index] += x < low ? gradient : 0;
        high_sums[index] += x > high ? gradient : 0;
      });
    });
  });
  std::copy(scale_sums.begin(), scale_sums.end(), gradients.scales);
  std::copy(low_sums.begin(), low_sums.end(), gradients.low);
  std::copy(high_sums.begin(), high_sums.end(), gradients.high);
}

void add_at_maxima_reference(const void* in, FloatType type, const RowGroups& shape,
                             const float* maxima, const float* amounts, void* grad) {
  std::vector<double> counts = zeros(shape.rows * ((shape.cols + shape.group - 1) / shape.group));
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    const auto is_maximum = [&](int64_t group, int64_t i) {
      const float max = maxima[group];
      return max > 0 && std::abs(load_element<kType>(in, i)) == max;
    };
    for_each_element(shape, [&](int64_t group, int64_t i, int64_t /*row*/) {
      counts[static_cast<size_t>(group)] += is_maximum(group, i) ? 1 : 0;
    });
    for_each_element(shape, [&](int64_t group, int64_t i, int64_t /*row*/) {
      if (is_maximum(group, i)) {
        const auto count = static_cast<float>(counts[static_cast<size_t>(group)]);
        const float part = std::copysign(1.0F, load_element<kType>(in, i)) * amounts[group] / count;
        store_element<kType>(load_element<kType>(grad, i) + part, grad, i);
      }
    });
  });
}

}  // namespace blockptq::kernels
