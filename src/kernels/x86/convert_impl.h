// kernels/convert.h over the vectors of one instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/types.h"
#include "kernels/x86/transform.h"

namespace blockptq::kernels {

template <typename Vector, FloatType in_type, FloatType out_type>
void convert_run(const uint8_t* in, int64_t count, uint8_t* out) {
  if constexpr (in_type == out_type) {
    std::memcpy(out, in, count * element_size(in_type));
  } else {
    transform<Vector::kLanes, element_size(in_type), element_size(out_type)>(
        in, count, out, [](const uint8_t* from, uint8_t* to) {
          Vector::template store<out_type>(Vector::template load<in_type>(from), to);
        });
  }
}

template <typename Vector>
void convert_vectors(const void* in, FloatType in_type, int64_t count, FloatType out_type,
                     void* out) {
  visit_float_type(in_type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      convert_run<Vector, decltype(in_constant)::value, decltype(out_constant)::value>(
          static_cast<const uint8_t*>(in), count, static_cast<uint8_t*>(out));
    });
  });
}

}  // namespace blockptq::kernels
