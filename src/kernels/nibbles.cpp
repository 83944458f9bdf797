#include "kernels/nibbles.h"

#include <algorithm>
#include <array>
#include <bit>

namespace blockptq::kernels {
namespace {

constexpr int64_t kVector = 8;
constexpr int64_t kStep = 4 * kVector;
constexpr int kLevels = 4;

using Lanes = std::array<float, kStep>;

void add(Lanes& sums, const Lanes& values) {
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] += values[i];
  }
}

void add_step(Lanes& sums, const int8_t* codes, float scale) {
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] += scale * static_cast<float>(codes[i]);
  }
}

/// Sums of the elements i, i + 32, ... of `steps` * 32; a level takes over from the one below after
/// a power of two of additions.
Lanes cascade(const int8_t* codes, int64_t steps, float scale) {
  std::array<Lanes, kLevels> levels{};
  const int ceil_log2 = steps > 1 ? std::bit_width(static_cast<uint64_t>(steps - 1)) : 0;
  const int power = std::max(4, ceil_log2 / kLevels);
  const int64_t run = int64_t{1} << power;
  int64_t step = 0;
  while (step + run <= steps) {
    for (const int64_t end = step + run; step < end; ++step) {
      add_step(levels[0], codes + step * kStep, scale);
    }
    for (size_t level = 1; level < levels.size(); ++level) {
      add(levels[level], levels[level - 1]);
      levels[level - 1] = {};
      if ((step & ((run - 1) << (level * static_cast<size_t>(power)))) != 0) {
        break;
      }
    }
  }
  for (; step < steps; ++step) {
    add_step(levels[0], codes + step * kStep, scale);
  }
  for (size_t level = 1; level < levels.size(); ++level) {
    add(levels[0], levels[level]);
  }
  return levels[0];
}

}  // namespace

void pack_nibbles(const int8_t* low, const int8_t* high, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<uint8_t>(static_cast<uint8_t>(high[i]) << 4 | (low[i] & 15));
  }
}

void unpack_nibbles(const uint8_t* packed, int64_t count, bool high, int8_t* codes) {
  const int shift = high ? 4 : 0;
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>(((packed[i] >> shift & 15) ^ 8) - 8);
  }
}

float scaled_sum(const int8_t* codes, int64_t count, float scale) {
  const int64_t steps = count / kStep;
  Lanes lanes = cascade(codes, steps, scale);
  int64_t i = steps * kStep;
  for (; i + kVector <= count; i += kVector) {
    for (int64_t lane = 0; lane < kVector; ++lane) {
      lanes[lane] += scale * static_cast<float>(codes[i + lane]);
    }
  }
  for (int64_t lane = kVector; lane < kStep; ++lane) {
    lanes[lane % kVector] += lanes[lane];
  }
  float sum = 0;
  for (; i < count; ++i) {
    sum += scale * static_cast<float>(codes[i]);
  }
  for (int64_t lane = 0; lane < kVector; ++lane) {
    sum += lanes[lane];
  }
  return sum;
}

}  // namespace blockptq::kernels
