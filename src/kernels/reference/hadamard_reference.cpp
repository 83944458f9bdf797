#include "kernels/reference/hadamard_reference.h"

#include <cmath>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void hadamard_rows_reference(const void* in, FloatType type, int64_t rows, int64_t order, void* out,
                             float* scratch) {
  const auto factor = static_cast<float>(1 / std::sqrt(static_cast<double>(order)));
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < order; ++i) {
        scratch[i] = load_element<kType>(in, row * order + i);
      }
      for (int64_t step = 1; step < order; step *= 2) {
        for (int64_t i = 0; i < order; ++i) {
          if ((i & step) == 0) {
            const float a = scratch[i];
            const float b = scratch[i + step];
            scratch[i] = a + b;
            scratch[i + step] = a - b;
          }
        }
      }
      for (int64_t i = 0; i < order; ++i) {
        store_element<kType>(scratch[i] * factor, out, row * order + i);
      }
    }
  });
}

}  // namespace blockptq::kernels
