#include "kernels/reference/row_range_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void group_absmax_reference(const void* in, FloatType type, const RowGroups& shape, float* maxima) {
  const int64_t groups = (shape.cols + shape.group - 1) / shape.group;
  visit_float_type(type, [&](auto constant) {
    std::fill_n(maxima, shape.rows * groups, 0.0F);
    for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
      float& max = maxima[i / shape.cols * groups + i % shape.cols / shape.group];
      const float magnitude = std::abs(load_element<decltype(constant)::value>(in, i));
      if (magnitude > max || std::isnan(magnitude)) {
        max = magnitude;
      }
    }
  });
}

void row_range_reference(const void* in, FloatType type, int64_t rows, int64_t cols, float* minima,
                         float* maxima) {
  visit_float_type(type, [&](auto constant) {
    std::fill_n(minima, rows, std::numeric_limits<float>::infinity());
    std::fill_n(maxima, rows, -std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float x = load_element<decltype(constant)::value>(in, i);
      minima[i / cols] = std::fmin(minima[i / cols], x);
      maxima[i / cols] = std::fmax(maxima[i / cols], x);
    }
  });
}

}  // namespace blockptq::kernels
