#include "kernels/reference/convert_reference.h"

#include <cstring>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {

void convert_reference(const void* in, FloatType in_type, int64_t count, FloatType out_type,
                       void* out) {
  if (in_type == out_type) {
    std::memcpy(out, in, static_cast<size_t>(count * element_size(in_type)));
    return;
  }
  visit_float_type(in_type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      for (int64_t i = 0; i < count; ++i) {
        const float value = load_element<decltype(in_constant)::value>(in, i);
        store_element<decltype(out_constant)::value>(value, out, i);
      }
    });
  });
}

}  // namespace blockptq::kernels
