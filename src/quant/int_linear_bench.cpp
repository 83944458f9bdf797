// Linears on integers at the sizes of an expert, as ratios.
#include <ATen/ATen.h>

#include <string>

#include "kernels/bench_ratio.h"
#include "quant/grid.h"
#include "quant/int_linear.h"

namespace blockptq {
namespace {

constexpr int64_t kHidden = 7168;
constexpr int64_t kExpert = 2048;

IntWeight random_weight(int64_t outputs, int64_t inputs, int bits) {
  const int64_t limit = q_max(bits) + 1;
  return pack(
      {at::randint(-limit, limit, {outputs, inputs}, at::kChar), at::rand({outputs}), bits});
}

/// Quantize, multiply, scale, against the bare product of int8 matrices.
void against_int_mm(benchmark::State& state, int64_t tokens, int bits) {
  const at::Tensor x = at::randn({tokens, kHidden}).to(at::kBFloat16);
  const at::Tensor codes = quantize_activation(x, 8).codes;
  const at::Tensor plain = at::randint(-128, 128, {kExpert, kHidden}, at::kChar);
  const IntWeight weight = random_weight(kExpert, kHidden, bits);
  kernels::measure_against(
      state, "int_mm", static_cast<int64_t>(x.nbytes() + weight.codes.nbytes()),
      [&] { int_linear(quantize_activation(x, 8), weight, at::kBFloat16); },
      [&] { at::_int_mm(codes, plain.t()); });
}

/// The three linears of an expert with their quantization, against bf16.
void expert_against_bf16(benchmark::State& state, int64_t tokens, int bits) {
  const at::Tensor x = at::randn({tokens, kHidden}).to(at::kBFloat16);
  const at::Tensor wide = at::randn({kExpert, kHidden}).to(at::kBFloat16);
  const at::Tensor back = at::randn({kHidden, kExpert}).to(at::kBFloat16);
  const IntWeight gate = random_weight(kExpert, kHidden, bits);
  const IntWeight up = random_weight(kExpert, kHidden, bits);
  const IntWeight down = random_weight(kHidden, kExpert, bits);
  const at::Tensor hidden = at::linear(x, wide);
  kernels::measure_against(
      state, "bf16", 3 * static_cast<int64_t>(gate.codes.nbytes()),
      [&] {
        const QActivation codes = quantize_activation(x, 8);
        int_linear(codes, gate, at::kBFloat16);
        int_linear(codes, up, at::kBFloat16);
        int_linear(quantize_activation(hidden, 8), down, at::kBFloat16);
      },
      [&] {
        at::linear(x, wide);
        at::linear(x, wide);
        at::linear(hidden, back);
      });
}

const bool kRegistered = [] {
  struct Named {
    const char* name;
    void (*function)(benchmark::State&, int64_t, int);
  };
  for (const Named bench :
       {Named{"vs_int_mm", against_int_mm}, {"expert_vs_bf16", expert_against_bf16}}) {
    for (const int bits : {4, 8}) {
      for (const int64_t tokens : {16, 64, 512}) {
        const std::string name = "int_linear/" + std::string(bench.name) + "/w" +
                                 std::to_string(bits) + "/" + std::to_string(tokens) + "_tokens";
        benchmark::RegisterBenchmark(name.c_str(), bench.function, tokens, bits)
            ->Iterations(9)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq
