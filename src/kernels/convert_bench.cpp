#include <string>

#include "kernels/bench_support.h"
#include "kernels/convert.h"

namespace blockptq::kernels {
namespace {

/// Converts buffers that lie in no cache, against memcpy of the output.
void convert_buffers(benchmark::State& state, Isa isa, FloatType in_type, FloatType out_type) {
  if (!use_isa(state, isa)) {
    return;
  }
  constexpr int64_t kCount = 8 << 20;
  const int64_t out_size = kCount * element_size(out_type);
  ColdBuffers buffers(kCount * element_size(in_type), out_size);
  measure_against(
      state, "memcpy", out_size,
      [&] {
        convert(buffers.in(), in_type, kCount, out_type, buffers.out());
        buffers.next();
      },
      [&] { buffers.copy_output(0, out_size); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType in_type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      for (const FloatType out_type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
        if (in_type != out_type) {
          const std::string name = "convert/" + std::string(isa_name(isa)) + "/" +
                                   type_name(in_type) + "_to_" + type_name(out_type);
          register_kernel(name, 31, convert_buffers, isa, in_type, out_type);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
