#include "kernels/reference/int_linear_reference.h"

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

/// Code [output, input].
int code_at(const IntWeights& w, int64_t output, int64_t input) {
  if (w.bits == 4) {
    const int64_t row_bytes = (w.inputs + 1) / 2;
    const int pair = static_cast<const uint8_t*>(w.codes)[output * row_bytes + input / 2];
    return (input % 2 == 0 ? pair & 15 : pair >> 4) - 8;
  }
  return static_cast<const int8_t*>(w.codes)[output * w.inputs + input];
}

}  // namespace

void int_linear_reference(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                          FloatType type, void* out, void* /*scratch*/) {
  visit_float_type(type, [&](auto constant) {
    for (int64_t t = 0; t < x.tokens; ++t) {
      for (int64_t o = begin; o < end; ++o) {
        int32_t sum = 0;
        for (int64_t i = 0; i < w.inputs; ++i) {
          sum += x.codes[t * w.inputs + i] * code_at(w, o, i);
        }
        const double scale = double{x.scales[t]} * double{w.scales[o]};
        store_element<decltype(constant)::value>(static_cast<float>(sum * scale), out,
                                                 t * w.outputs + o);
      }
    }
  });
}

}  // namespace blockptq::kernels
