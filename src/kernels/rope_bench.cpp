#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/rope.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kTokens = 128;
constexpr int64_t kHeads = 112;
constexpr int64_t kDim = 64;

/// Heads that lie in no cache, against memcpy of the output.
void rotate_heads(benchmark::State& state, Isa isa, FloatType type, bool interleaved) {
  if (!use_isa(state, isa)) {
    return;
  }
  const int64_t size = kTokens * kHeads * kDim * element_size(type);
  ColdBuffers buffers(size, size);
  const std::vector<float> cos(kTokens * kDim / 2, 0.6F);
  const std::vector<float> sin(kTokens * kDim / 2, 0.8F);
  const HeadStrides strides = {.token = kHeads * kDim, .head = kDim};
  measure_against(
      state, "memcpy", size,
      [&] {
        rotate(buffers.in(), strides, type, kTokens, kHeads, kDim, cos.data(), sin.data(),
               interleaved, buffers.out(), strides);
        buffers.next();
      },
      [&] { buffers.copy_output(0, size); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      for (const bool interleaved : {false, true}) {
        const std::string name = "rope/" + std::string(isa_name(isa)) + "/" + type_name(type) +
                                 (interleaved ? "/interleaved" : "/half_split");
        register_kernel(name, 101, rotate_heads, isa, type, interleaved);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
