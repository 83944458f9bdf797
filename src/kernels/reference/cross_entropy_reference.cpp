#include "kernels/reference/cross_entropy_reference.h"

#include <cmath>
#include <limits>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <FloatType type>
SoftmaxStats row_stats(const void* logits, int64_t begin, int64_t width) {
  SoftmaxStats row = {.max = -kInfinity, .sum = 0};
  for (int64_t i = 0; i < width; ++i) {
    const float logit = load_element<type>(logits, begin + i);
    row.max = logit > row.max ? logit : row.max;  // passes over NaN
  }
  const float shift = row.max == -kInfinity ? 0 : row.max;
  for (int64_t i = 0; i < width; ++i) {
    row.sum += std::exp(load_element<type>(logits, begin + i) - shift);
  }
  return row;
}

}  // namespace

void accumulate_softmax_reference(const void* logits, FloatType type, int64_t tokens, int64_t width,
                                  int64_t stride, SoftmaxStats* stats) {
  visit_float_type(type, [&](auto constant) {
    for (int64_t t = 0; t < tokens; ++t) {
      merge_softmax(row_stats<decltype(constant)::value>(logits, t * stride, width), stats[t]);
    }
  });
}

}  // namespace blockptq::kernels
