#include "kernels/reference/rms_norm_reference.h"

#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void rms_norm_reference(const void* in, FloatType type, int64_t in_stride, const int64_t* rows,
                        int64_t count, int64_t dim, const float* weight, double eps, void* out) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = (rows == nullptr ? i : rows[i]) * in_stride;
      double squares = 0;
      for (int64_t d = 0; d < dim; ++d) {
        const double x = load_element<kType>(in, begin + d);
        squares += x * x;
      }
      const double mean = squares / static_cast<double>(dim);
      const auto inverse = static_cast<float>(1 / std::sqrt(mean + eps));
      for (int64_t d = 0; d < dim; ++d) {
        const float x = load_element<kType>(in, begin + d);
        store_element<kType>(x * inverse * weight[d], out, i * dim + d);
      }
    }
  });
}

}  // namespace blockptq::kernels
