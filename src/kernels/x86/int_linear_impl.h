// kernels/int_linear.h over the integer dot products of one instruction set.
//
// Dots::kDepth codes of a token meet as many of each of kLanes outputs in one instruction. A panel
// is the weights of kOutputs outputs in the order of that instruction: [step][output][code of the
// step]. A tile is what kRows tokens and a panel have in registers: all their sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/int_linear.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Calls step(0), step(1), ..., step(count - 1) with constants.
template <int64_t count, typename Step>
[[gnu::always_inline]] inline void unroll(const Step& step) {
  [&]<int64_t... index>(std::integer_sequence<int64_t, index...>) __attribute__((always_inline)) {
    (step(std::integral_constant<int64_t, index>()), ...);
  }
  (std::make_integer_sequence<int64_t, count>());
}

template <typename Dots>
struct IntLinear {
  using Vector = typename Dots::Vector;
  using Sums = typename Dots::Sums;
  static constexpr int64_t kLanes = Vector::kLanes;
  static constexpr int64_t kVectors = Dots::kVectors;
  static constexpr int64_t kOutputs = kLanes * kVectors;
  static constexpr int64_t kStepBytes = kVectors * Vector::kBytes;
  static constexpr int64_t kChunk = kLanes * Dots::kDepth;  ///< codes of a row in one vector

  /// One call of the kernel.
  struct Call {
    const IntTokens& x;
    const IntWeights& w;
    const int32_t* excess;  ///< per token, what the bias of the panel's codes adds to each sum
    const uint8_t* panel;
    uint8_t* out;
  };

  /// kChunk codes from `at`, of which `count` are there.
  template <int bits>
  static typename Vector::Bytes load_codes(const uint8_t* at, int64_t count) {
    if (count >= kChunk) {
      return Dots::template load_codes<bits>(at);
    }
    uint8_t padded[kChunk] = {};
    std::memcpy(padded, at, bits == 4 ? (count + 1) / 2 : count);
    return Dots::template load_codes<bits>(padded);
  }

  /// Weights of outputs [begin, end), at most kOutputs, to a panel. What stands in the place of
  /// outputs and inputs that do not exist is not used.
  template <int bits>
  static void fill_panel(const IntWeights& w, int64_t begin, int64_t end, uint8_t* panel) {
    const int64_t row_bytes = bits == 4 ? (w.inputs + 1) / 2 : w.inputs;
    const auto* codes = static_cast<const uint8_t*>(w.codes);
    for (int64_t v = 0; v < kVectors; ++v) {
      const int64_t first = begin + v * kLanes;
      for (int64_t i = 0; i < w.inputs; i += kChunk) {
        typename Vector::Bytes block[kLanes];
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const int64_t o = first + lane < end ? first + lane : begin;
          block[lane] = load_codes<bits>(codes + o * row_bytes + i * bits / 8, w.inputs - i);
        }
        Dots::transpose(block);
        uint8_t* to = panel + i / Dots::kDepth * kStepBytes + v * Vector::kBytes;
        for (int64_t step = 0; step < kLanes; ++step) {
          Vector::store_bytes(block[step], to + step * kStepBytes);
        }
      }
    }
  }

  /// Adds `steps` steps of a panel times tokens that are `stride` codes apart. The sums are a copy,
  /// all loops over them unrolled: so they stay in registers.
  template <int64_t rows>
  [[gnu::noinline]] static void add_steps(const uint8_t* panel, const int8_t* x, int64_t stride,
                                          int64_t steps, Sums (&out)[rows][kVectors]) {
    Sums sums[rows][kVectors];
    unroll<rows>([&](auto r) { unroll<kVectors>([&](auto v) { sums[r][v] = out[r][v]; }); });
    for (int64_t step = 0; step < steps; ++step) {
      typename Vector::Bytes weights[kVectors];
      unroll<kVectors>(
          [&](auto v) { weights[v] = Vector::load_bytes(panel + v * Vector::kBytes); });
      unroll<rows>([&](auto r) {
        const auto codes = Dots::broadcast_codes(x + r * stride);
        unroll<kVectors>(
            [&](auto v) { sums[r][v] = Dots::add_products(sums[r][v], weights[v], codes); });
      });
      panel += kStepBytes;
      x += Dots::kDepth;
    }
    unroll<rows>([&](auto r) { unroll<kVectors>([&](auto v) { out[r][v] = sums[r][v]; }); });
  }

  template <int64_t rows>
  static void find_sums(const Call& call, int64_t token, Sums (&sums)[rows][kVectors]) {
    const int64_t inputs = call.w.inputs;
    const int64_t steps = inputs / Dots::kDepth;
    const int64_t whole = steps * Dots::kDepth;
    const int8_t* x = call.x.codes + token * inputs;
    add_steps<rows>(call.panel, x, inputs, steps, sums);
    if (whole < inputs) {
      int8_t last[rows * Dots::kDepth] = {};
      for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(last + r * Dots::kDepth, x + r * inputs + whole, inputs - whole);
      }
      add_steps<rows>(call.panel + steps * kStepBytes, last, Dots::kDepth, 1, sums);
    }
  }

  template <int64_t rows, FloatType type>
  static void run_tile(const Call& call, int64_t token, int64_t begin, int64_t end) {
    Sums sums[rows][kVectors] = {};
    find_sums<rows>(call, token, sums);
    double scales[kOutputs] = {};
    std::copy(call.w.scales + begin, call.w.scales + end, scales);
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t row[kOutputs * element_size(type)];
      for (int64_t v = 0; v < kVectors; ++v) {
        const auto y = Dots::scaled(sums[r][v], call.excess[token + r], call.x.scales[token + r],
                                    scales + v * kLanes);
        Vector::template store<type, false>(y, row + v * kLanes * element_size(type));
      }
      std::memcpy(call.out + ((token + r) * call.w.outputs + begin) * element_size(type), row,
                  (end - begin) * element_size(type));
    }
  }

  /// The last `count` < rows + 1 tokens.
  template <int64_t rows, FloatType type>
  static void run_last_tile(const Call& call, int64_t token, int64_t count, int64_t begin,
                            int64_t end) {
    if constexpr (rows > 0) {
      if (count == rows) {
        run_tile<rows, type>(call, token, begin, end);
      } else {
        run_last_tile<rows - 1, type>(call, token, count, begin, end);
      }
    }
  }

  template <int bits, FloatType type>
  static void run(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end, void* out,
                  void* scratch) {
    auto* excess = static_cast<int32_t*>(scratch);
    Dots::find_excess(x.codes, x.tokens, w.inputs, bits, excess);
    auto* panel = static_cast<uint8_t*>(scratch) + (4 * x.tokens + 63) / 64 * 64;
    const Call call = {x, w, excess, panel, static_cast<uint8_t*>(out)};
    for (int64_t first = begin; first < end; first += kOutputs) {
      const int64_t last = end - first < kOutputs ? end : first + kOutputs;
      fill_panel<bits>(w, first, last, panel);
      int64_t t = 0;
      for (; t + Dots::kRows <= x.tokens; t += Dots::kRows) {
        run_tile<Dots::kRows, type>(call, t, first, last);
      }
      run_last_tile<Dots::kRows - 1, type>(call, t, x.tokens - t, first, last);
    }
  }
};

template <typename Dots>
void int_linear_vectors(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end,
                        FloatType type, void* out, void* scratch) {
  visit_float_type(type, [&](auto constant) {
    constexpr FloatType kType = decltype(constant)::value;
    if (w.bits == 4) {
      IntLinear<Dots>::template run<4, kType>(x, w, begin, end, out, scratch);
    } else {
      IntLinear<Dots>::template run<8, kType>(x, w, begin, end, out, scratch);
    }
  });
}

}  // namespace blockptq::kernels
