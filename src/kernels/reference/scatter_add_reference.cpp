#include "kernels/reference/scatter_add_reference.h"

#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void scatter_add_rows_reference(const void* in, FloatType type, const float* weights,
                                const int64_t* rows, int64_t count, int64_t dim, void* out) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < dim; ++d) {
        const float x = load_element<kType>(in, i * dim + d);
        const float before = load_element<kType>(out, rows[i] * dim + d);
        store_element<kType>(std::fma(weights[i], x, before), out, rows[i] * dim + d);
      }
    }
  });
}

}  // namespace blockptq::kernels
