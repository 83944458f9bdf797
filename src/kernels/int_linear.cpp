#include "kernels/int_linear.h"

#include <cstring>

#include "kernels/dispatch.h"
#include "kernels/reference/int_linear_reference.h"
#include "kernels/x86/kernels.h"

namespace blockptq::kernels {
namespace {

#if defined(__x86_64__)
/// Wider vectors are worth it with VNNI only.
bool has_vnni() {
  static const bool kHas = __builtin_cpu_supports("avx512vnni") != 0;
  return kHas;
}
#endif

}  // namespace

int64_t int_linear_scratch(int64_t tokens, int64_t inputs) {
  // A panel: up to 64 bytes per input, inputs rounded up to whole vectors. One int32 per token.
  return (4 * tokens + 63) / 64 * 64 + (inputs + 63) / 64 * 64 * kIntLinearPanel;
}

void int_linear(const IntTokens& x, const IntWeights& w, int64_t begin, int64_t end, FloatType type,
                void* out, void* scratch) {
#if defined(__x86_64__)
  const auto widest = has_vnni() ? int_linear_avx512 : int_linear_avx2;
  choose(int_linear_reference, int_linear_avx2, widest)(x, w, begin, end, type, out, scratch);
#else
  int_linear_reference(x, w, begin, end, type, out, scratch);
#endif
}

void pack_int4(const int8_t* codes, int64_t count, uint8_t* out) {
  // In four bits of two's complement, adding 8 is flipping the sign.
  for (int64_t i = 0; i < count / 2; ++i) {
    uint16_t pair = 0;  // words, so that the loop becomes vectors
    std::memcpy(&pair, codes + 2 * i, sizeof pair);
    out[i] = static_cast<uint8_t>(((pair & 0xfU) | (pair >> 4 & 0xf0U)) ^ 0x88U);
  }
  if (count % 2 != 0) {
    out[count / 2] = static_cast<uint8_t>((codes[count - 1] & 0xf) ^ 0x8);
  }
}

}  // namespace blockptq::kernels
