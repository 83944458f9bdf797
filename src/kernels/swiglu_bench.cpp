#include <random>
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/convert.h"
#include "kernels/reference/swiglu_reference.h"
#include "kernels/swiglu.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kCount = 1 << 16;

/// What an expert's projections just wrote, against the scalar version.
void activate(benchmark::State& state, Isa isa, FloatType type) {
  if (!use_isa(state, isa)) {
    return;
  }
  const int64_t size = kCount * element_size(type);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(2 * kCount);
  for (float& value : values) {
    value = normal(random);
  }
  std::vector<uint8_t> inputs(static_cast<size_t>(2 * size));
  std::vector<uint8_t> out(static_cast<size_t>(size));
  convert(values.data(), FloatType::f32, 2 * kCount, type, inputs.data());
  const uint8_t* gate = inputs.data();
  const uint8_t* up = gate + size;
  measure_against(
      state, "scalar", size, [&] { swiglu(gate, up, type, kCount, out.data()); },
      [&] { swiglu_reference(gate, up, type, kCount, out.data()); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      const std::string name = "swiglu/" + std::string(isa_name(isa)) + "/" + type_name(type);
      register_kernel(name, 101, activate, isa, type)->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
