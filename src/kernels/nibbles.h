// Four-bit codes of two rows in one byte, and the row sums that are stored beside them.
#pragma once

#include <cstdint>

namespace blockptq::kernels {

/// out[i] = high[i] << 4 | low[i] & 15 for i in [0, count); codes in [-8, 7].
void pack_nibbles(const int8_t* low, const int8_t* high, int64_t count, uint8_t* out);

/// The low or high halves of `count` bytes, sign-extended.
void unpack_nibbles(const uint8_t* packed, int64_t count, bool high, int8_t* codes);

/// The sum of scale * codes[i] in fp32, in the order in which ATen sums a row of 8 or more
/// (ATen/native/cpu/SumKernel.cpp: four vectors of eight lanes, cascaded), so that files with such
/// sums are the same to the bit whoever writes them.
float scaled_sum(const int8_t* codes, int64_t count, float scale);

}  // namespace blockptq::kernels
