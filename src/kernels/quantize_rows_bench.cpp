#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/fake_quantize_backward.h"
#include "kernels/hadamard.h"
#include "kernels/quantize_rows.h"
#include "kernels/row_range.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kCols = 7168;

/// Rows that lie in no cache, one by one as the callers of the kernels do: each is in the cache
/// after the first kernel. `work(in, out)` on one row of `type`, against memcpy of the output.
template <typename Work>
void row_by_row(benchmark::State& state, Isa isa, FloatType type, const Work& work) {
  if (!use_isa(state, isa)) {
    return;
  }
  const int64_t row_bytes = kCols * element_size(type);
  ColdBuffers buffers(kRows * row_bytes, kRows * row_bytes);
  measure_against(
      state, "memcpy", kRows * row_bytes,
      [&] {
        for (int64_t row = 0; row < kRows; ++row) {
          work(buffers.in() + row * row_bytes, buffers.out() + row * row_bytes);
        }
        buffers.next();
      },
      [&] { buffers.copy_output(0, kRows * row_bytes); });
}

void codes(benchmark::State& state, Isa isa, FloatType type) {
  row_by_row(state, isa, type, [&](const uint8_t* in, uint8_t* out) {
    float scale = 0;
    group_absmax(in, type, {1, kCols, kCols}, &scale);
    quantize_rows(in, type, {1, kCols, kCols}, 8, &scale, reinterpret_cast<int8_t*>(out));
  });
}

void clamped(benchmark::State& state, Isa isa, FloatType type) {
  row_by_row(state, isa, type, [&](const uint8_t* in, uint8_t* out) {
    float low = 0;
    float high = 0;
    row_range(in, type, 1, kCols, &low, &high);
    fake_quantize_rows(in, type, {1, kCols, kCols}, 8, &high, {&low, &high}, type, out);
  });
}

void gradients(benchmark::State& state, Isa isa, FloatType type) {
  row_by_row(state, isa, type, [&](const uint8_t* in, uint8_t* out) {
    float scale = 0;
    float flow = 0;
    group_absmax(in, type, {1, kCols, kCols}, &scale);
    fake_quantize_rows_backward(in, type, {1, kCols, kCols}, 8, &scale, in, type, out, &flow);
  });
}

void rotation(benchmark::State& state, Isa isa, FloatType type) {
  constexpr int64_t kOrder = 128;
  std::vector<float> scratch(2 * kOrder);
  row_by_row(state, isa, type, [&](const uint8_t* in, uint8_t* out) {
    hadamard_rows(in, type, kCols / kOrder, kOrder, out, scratch.data());
  });
}

const bool kRegistered = [] {
  struct Named {
    const char* name;
    void (*function)(benchmark::State&, Isa, FloatType);
  };
  for (const Named bench : {Named{"absmax_and_codes", codes},
                            {"clamped_fake_quantize", clamped},
                            {"fake_quantize_backward", gradients},
                            {"hadamard_128", rotation}}) {
    for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
      for (const FloatType type : {FloatType::f32, FloatType::bf16}) {
        const std::string name = std::string("quantize_rows/") + bench.name + "/" +
                                 std::string(isa_name(isa)) + "/" + type_name(type);
        register_kernel(name, 101, bench.function, isa, type);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
