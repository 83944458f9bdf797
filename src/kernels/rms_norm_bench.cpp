#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/rms_norm.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kDim = 7168;

/// Rows that lie in no cache, against memcpy of the output.
void norm_rows(benchmark::State& state, Isa isa, FloatType type) {
  if (!use_isa(state, isa)) {
    return;
  }
  const int64_t size = kRows * kDim * element_size(type);
  ColdBuffers buffers(size, size);
  const std::vector<float> weight(kDim, 0.5F);
  measure_against(
      state, "memcpy", size,
      [&] {
        rms_norm(buffers.in(), type, kDim, nullptr, kRows, kDim, weight.data(), 1e-6,
                 buffers.out());
        buffers.next();
      },
      [&] { buffers.copy_output(0, size); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      const std::string name = "rms_norm/" + std::string(isa_name(isa)) + "/" + type_name(type);
      register_kernel(name, 101, norm_rows, isa, type);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
