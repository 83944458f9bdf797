#include "kernels/reference/descend_codes_reference.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace blockptq::kernels {
namespace {

double dot(const float* a, const float* b, int64_t tokens) {
  std::array<float, kDescentTokens> sums{};
  for (int64_t t = 0; t < tokens; ++t) {
    float& sum = sums[static_cast<size_t>(t % kDescentTokens)];
    sum = std::fma(a[t], b[t], sum);
  }
  double total = 0;
  for (const float sum : sums) {
    total += sum;
  }
  return total;
}

}  // namespace

void descend_codes_reference(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                             float* gradients, int8_t* codes) {
  const double q_max = (1 << (problem.bits - 1)) - 1;
  for (int64_t o = channel_begin; o < channel_end; ++o) {
    float* z = gradients + o * problem.tokens;
    const float* weights = problem.weights + o * problem.tokens;
    const double scale = problem.scales[o];
    for (int64_t i = 0; i < problem.features; ++i) {
      const int64_t at = o * problem.features + i;
      const double curvature = problem.curvature[at];
      if (!(curvature > 0)) {
        continue;
      }
      const float* x = problem.inputs + i * problem.tokens;
      const double code = codes[at];
      const double pull = problem.ridges[o] * (problem.targets[at] - scale * code);
      const double step = (dot(x, z, problem.tokens) + pull) / (scale * curvature);
      const double next = std::clamp(std::nearbyint(code + step), -q_max - 1, q_max);
      const auto change = static_cast<float>(scale * (next - code));
      if (change == 0) {
        continue;
      }
      codes[at] = static_cast<int8_t>(next);
      for (int64_t t = 0; t < problem.tokens; ++t) {
        z[t] = std::fma(-(change * x[t]), weights[t], z[t]);
      }
    }
  }
}

}  // namespace blockptq::kernels
