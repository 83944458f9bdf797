// kernels/descend_codes.h over the vectors of one instruction set.
#pragma once

#include <cstdint>

#include "kernels/descend_codes.h"
#include "kernels/types.h"

namespace blockptq::kernels {

template <typename Vector>
struct Descent {
  using Floats = typename Vector::Floats;
  static constexpr int64_t kParts = kDescentTokens / Vector::kLanes;  ///< vectors of a step
  static constexpr int64_t kRows = Vector::kLanes / 2;  ///< channels whose sums fill the registers
  static constexpr int64_t kCached = 2 * kRows;  ///< channels that share a feature in the cache

  static Floats load(const float* at) {
    return Vector::template load<FloatType::f32>(reinterpret_cast<const uint8_t*>(at));
  }

  /// dots[r] = sum over tokens of x * (row r of z).
  template <int64_t rows>
  static void dot(const float* x, const float* z, int64_t tokens, double* dots) {
    Floats sums[rows][kParts];
    for (auto& row : sums) {
      for (auto& sum : row) {
        sum = Vector::broadcast(0);
      }
    }
    for (int64_t t = 0; t < tokens; t += kDescentTokens) {
      for (int64_t p = 0; p < kParts; ++p) {
        const int64_t at = t + p * Vector::kLanes;
        const Floats inputs = load(x + at);
        for (int64_t r = 0; r < rows; ++r) {
          sums[r][p] = Vector::multiply_add(inputs, load(z + r * tokens + at), sums[r][p]);
        }
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      dots[r] = 0;
      for (const auto& sum : sums[r]) {
        dots[r] += Vector::sum_of_lanes(sum);
      }
    }
  }

  static void add(const float* x, const float* weights, float change, int64_t tokens, float* z) {
    const Floats minus = Vector::broadcast(-change);
    for (int64_t t = 0; t < tokens; t += Vector::kLanes) {
      const Floats moved = Vector::multiply(minus, load(x + t));
      Vector::template store<FloatType::f32>(
          Vector::multiply_add(moved, load(weights + t), load(z + t)),
          reinterpret_cast<uint8_t*>(z + t));
    }
  }

  /// Rounds half to even, as the scalar version does; |value| < 2^51.
  static double round(double value) {
    constexpr double kMagic = 0x1.8p52;
    return (value + kMagic) - kMagic;
  }

  /// The new code of one feature of one channel.
  static void step(const CodeDescent& problem, int64_t o, int64_t i, double sum, float* z,
                   int8_t* codes) {
    const int64_t at = o * problem.features + i;
    const double curvature = problem.curvature[at];
    if (!(curvature > 0)) {
      return;
    }
    const double q_max = (1 << (problem.bits - 1)) - 1;
    const double scale = problem.scales[o];
    const double code = codes[at];
    const double pull = problem.ridges[o] * (problem.targets[at] - scale * code);
    const double wanted = code + (sum + pull) / (scale * curvature);
    const double inside = wanted > q_max ? q_max : (wanted < -q_max - 1 ? -q_max - 1 : wanted);
    const double next = round(inside);
    const auto change = static_cast<float>(scale * (next - code));
    if (change != 0) {
      codes[at] = static_cast<int8_t>(next);
      add(problem.inputs + i * problem.tokens, problem.weights + o * problem.tokens, change,
          problem.tokens, z);
    }
  }

  template <int64_t rows>
  static void steps(const CodeDescent& problem, int64_t o, int64_t i, float* gradients,
                    int8_t* codes) {
    double dots[rows];
    float* z = gradients + o * problem.tokens;
    dot<rows>(problem.inputs + i * problem.tokens, z, problem.tokens, dots);
    for (int64_t r = 0; r < rows; ++r) {
      step(problem, o + r, i, dots[r], z + r * problem.tokens, codes);
    }
  }
};

template <typename Vector>
void descend_codes_vectors(const CodeDescent& problem, int64_t channel_begin, int64_t channel_end,
                           float* gradients, int8_t* codes) {
  using Kernel = Descent<Vector>;
  for (int64_t begin = channel_begin; begin < channel_end; begin += Kernel::kCached) {
    const int64_t end =
        begin + Kernel::kCached < channel_end ? begin + Kernel::kCached : channel_end;
    for (int64_t i = 0; i < problem.features; ++i) {
      int64_t o = begin;
      for (; o + Kernel::kRows <= end; o += Kernel::kRows) {
        Kernel::template steps<Kernel::kRows>(problem, o, i, gradients, codes);
      }
      for (; o < end; ++o) {
        Kernel::template steps<1>(problem, o, i, gradients, codes);
      }
    }
  }
}

}  // namespace blockptq::kernels
