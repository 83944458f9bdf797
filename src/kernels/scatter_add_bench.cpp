#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/scatter_add.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kDim = 7168;

/// Rows in random order that lie in no cache, against memcpy of the output.
void add_rows(benchmark::State& state, Isa isa, FloatType type) {
  if (!use_isa(state, isa)) {
    return;
  }
  const int64_t size = kRows * kDim * element_size(type);
  ColdBuffers buffers(size, size);
  const std::vector<float> weights(kRows, 0.5F);
  std::vector<int64_t> rows(kRows);
  std::iota(rows.begin(), rows.end(), 0);
  std::shuffle(rows.begin(), rows.end(), std::mt19937(1));
  measure_against(
      state, "memcpy", size,
      [&] {
        scatter_add_rows(buffers.in(), type, weights.data(), rows.data(), kRows, kDim,
                         buffers.out());
        buffers.next();
      },
      [&] { buffers.copy_output(0, size); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      const std::string name = "scatter_add/" + std::string(isa_name(isa)) + "/" + type_name(type);
      register_kernel(name, 101, add_rows, isa, type);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
