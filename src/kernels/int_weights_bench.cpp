#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/int_weights.h"

namespace blockptq::kernels {
namespace {

struct Layout {
  const char* name;
  int word_bits;
  int bits;
  int64_t group_size;
};
constexpr int64_t kRows = 2048;
constexpr int64_t kCols = 7168;
constexpr Layout kLayouts[] = {{"int8", 8, 8, kCols}, {"packed4", 32, 4, 32}};

/// Decodes matrices that lie in no cache to bf16, against memcpy of the output.
void decode_int_weights(benchmark::State& state, Isa isa, const Layout& layout) {
  if (!use_isa(state, isa)) {
    return;
  }
  ColdBuffers buffers(kRows * kCols * layout.bits / 8, kRows * kCols * 2);
  const std::vector<float> scales(kRows * kCols / layout.group_size, 0.0123F);
  measure_against(
      state, "memcpy", kRows * kCols * 2,
      [&] {
        const IntMatrix matrix = {.word_bits = layout.word_bits,
                                  .bits = layout.bits,
                                  .codes = buffers.in(),
                                  .scales = scales.data(),
                                  .rows = kRows,
                                  .cols = kCols,
                                  .group_size = layout.group_size};
        decode_int(matrix, 0, kRows, FloatType::bf16, buffers.out());
        buffers.next();
      },
      [&] { buffers.copy_output(0, kRows * kCols * 2); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const Layout& layout : kLayouts) {
      const std::string name =
          "decode_int/" + std::string(isa_name(isa)) + "/" + layout.name + "_to_bf16";
      register_kernel(name, 31, decode_int_weights, isa, layout);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
