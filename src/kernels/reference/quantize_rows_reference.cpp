#include "kernels/reference/quantize_rows_reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

/// NaN stays NaN.
float code_of(float x, float scale, int bits) {
  const auto q_max = static_cast<float>((1 << (bits - 1)) - 1);
  return std::clamp(std::nearbyint(x / scale), -q_max - 1, q_max);
}

int64_t group_of(int64_t element, const RowGroups& shape) {
  const int64_t groups = (shape.cols + shape.group - 1) / shape.group;
  return element / shape.cols * groups + element % shape.cols / shape.group;
}

}  // namespace

void quantize_rows_reference(const void* in, FloatType type, const RowGroups& shape, int bits,
                             const float* scales, int8_t* codes) {
  visit_float_type(type, [&](auto constant) {
    for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
      const float x = load_element<decltype(constant)::value>(in, i);
      const float code = code_of(x, scales[group_of(i, shape)], bits);
      codes[i] = static_cast<int8_t>(std::isnan(code) ? -std::ldexp(1.0F, bits - 1) : code);
    }
  });
}

void fake_quantize_rows_reference(const void* in, FloatType type, const RowGroups& shape, int bits,
                                  const float* scales, const RowBounds& bounds, FloatType out_type,
                                  void* out) {
  visit_float_type(type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      for (int64_t i = 0; i < shape.rows * shape.cols; ++i) {
        float x = load_element<decltype(in_constant)::value>(in, i);
        if (bounds.low != nullptr) {
          const float low = bounds.low[i / shape.cols];
          const float high = bounds.high[i / shape.cols];
          x = x < low ? low : x;
          x = x > high ? high : x;
        }
        const float scale = scales[group_of(i, shape)];
        store_element<decltype(out_constant)::value>(scale * code_of(x, scale, bits), out, i);
      }
    });
  });
}

}  // namespace blockptq::kernels
