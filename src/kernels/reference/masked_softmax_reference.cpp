#include "kernels/reference/masked_softmax_reference.h"

#include <cmath>
#include <limits>

#include "kernels/reference/float_bits.h"

namespace blockptq::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool sees(const Visibility& visible, int64_t query, int64_t key) {
  return visible.bytes == nullptr ? key <= visible.first_query + query
                                  : visible.bytes[query * visible.stride + key] != 0;
}

/// Softmax of scale * row in place; -infinity gives 0.
void softmax(float* row, int64_t keys, float scale) {
  float max = -kInfinity;
  for (int64_t k = 0; k < keys; ++k) {
    max = row[k] > max ? row[k] : max;  // passes over NaN
  }
  const float shift = max == -kInfinity ? 0 : max;
  double sum = 0;
  for (int64_t k = 0; k < keys; ++k) {
    row[k] = std::exp(scale * (row[k] - shift));
    sum += row[k];
  }
  const auto inverse = static_cast<float>(1 / sum);
  for (int64_t k = 0; k < keys; ++k) {
    row[k] = row[k] == 0 ? 0 : row[k] * inverse;
  }
}

}  // namespace

void masked_softmax_reference(const void* scores, FloatType in_type, int64_t heads, int64_t queries,
                              int64_t keys, float scale, const Visibility& visible,
                              FloatType out_type, void* out, float* row) {
  visit_float_type(in_type, [&](auto in_constant) {
    visit_float_type(out_type, [&](auto out_constant) {
      for (int64_t i = 0; i < heads * queries; ++i) {
        for (int64_t k = 0; k < keys; ++k) {
          const float score = load_element<decltype(in_constant)::value>(scores, i * keys + k);
          row[k] = sees(visible, i % queries, k) ? score : -kInfinity;
        }
        softmax(row, keys, scale);
        for (int64_t k = 0; k < keys; ++k) {
          store_element<decltype(out_constant)::value>(row[k], out, i * keys + k);
        }
      }
    });
  });
}

}  // namespace blockptq::kernels
