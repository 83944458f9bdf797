#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/fp8_block.h"

namespace blockptq::kernels {
namespace {

/// Decodes matrices as large as an expert's that lie in no cache, against memcpy of the output.
void decode_fp8(benchmark::State& state, Isa isa, FloatType type) {
  if (!use_isa(state, isa)) {
    return;
  }
  constexpr int64_t kRows = 2048;
  constexpr int64_t kCols = 7168;
  const int64_t row_bytes = kCols * element_size(type);
  ColdBuffers buffers(kRows * kCols, kRows * row_bytes);
  const std::vector<float> scales(kRows / 128 * kCols / 128, 0.0123F);
  const auto decode = [&](int64_t begin, int64_t end) {
    const Fp8BlockMatrix matrix = {buffers.in(), scales.data(), kRows, kCols, 128, 128};
    if (!decode_fp8_block(matrix, begin, end, type, buffers.out() + begin * row_bytes)) {
      state.SkipWithError("NaN code");
    }
  };
  const auto copy = [&](int64_t begin, int64_t end) {
    buffers.copy_output(begin * row_bytes, end * row_bytes);
  };
  const int64_t threads = state.range(0);
  measure_against(
      state, "memcpy", kRows * row_bytes,
      [&] {
        on_threads(threads, kRows, decode);
        buffers.next();
      },
      [&] { on_threads(threads, kRows, copy); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::bf16, FloatType::f16, FloatType::f32}) {
      const std::string name =
          "decode_fp8/" + std::string(isa_name(isa)) + "/" + type_name(type) + "/threads";
      register_kernel(name, 31, decode_fp8, isa, type)->Arg(1)->Arg(2);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
