// Linears on integer codes: exact sums of products, then the scales.
//
//   y[t, o] = (x.scales[t] * w.scales[o]) * sum over i of x.codes[t, i] * w.codes[o, i]
//
// The sum is exact in int32 for any codes of up to 2^17 inputs. It is multiplied by the scales in
// fp64, where their product is exact, and rounded once to fp32: what fp32 arithmetic on the values
// approaches. Then it becomes the type of the output. Buffers need no alignment.
//
// Weights are used as they lie in memory: a panel of outputs at a time is brought into the order of
// the instruction set (4-bit codes unpacked on the way) and serves all tokens.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace blockptq::kernels {

/// Activations [tokens, inputs], row-major.
struct IntTokens {
  const int8_t* codes = nullptr;
  const float* scales = nullptr;  ///< one per token
  int64_t tokens = 0;
};

/// Weights [outputs, inputs], row-major.
struct IntWeights {
  /// 8: int8 codes. 4: two codes a byte, ceil(inputs / 2) bytes a row; code + 8, the earlier one in
  /// the lower half (pack_int4).
  int bits = 8;
  const void* codes = nullptr;
  const float* scales = nullptr;  ///< one per output
  int64_t outputs = 0;
  int64_t inputs = 0;
};

/// Outputs that belong together: a range of them begins at a multiple for the least work.
constexpr int64_t kIntLinearPanel = 64;

/// Bytes that int_linear() wants as scratch, aligned to 4 bytes at least and 64 at best.
int64_t int_linear_scratch(int64_t tokens, int64_t inputs);

/// Writes outputs [begin, end) of all tokens to `out` [tokens, w.outputs].
void int_linear(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end, FloatType type,
                void* out, void* scratch);

/// `count` codes in [-8, 7] to ceil(count / 2) bytes as IntWeights has them.
void pack_int4(const int8_t* codes, int64_t count, uint8_t* out);

}  // namespace blockptq::kernels
