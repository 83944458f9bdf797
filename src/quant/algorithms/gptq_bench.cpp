// Second-order rounding of one matrix at real sizes, 4 bits, against one product W H.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <string>
#include <utility>

#include "kernels/bench_ratio.h"
#include "quant/algorithms/gptq.h"

namespace blockptq {
namespace {

InputStatistics random_statistics(int64_t features) {
  at::manual_seed(1);
  const at::Tensor x_TI = at::randn({features / 4, features}) * at::randn({features}).exp();
  at::Tensor hessian_II = at::matmul(x_TI.t(), x_TI);
  hessian_II.diagonal().add_(hessian_II.diagonal().mean());
  return {hessian_II, {}, 4 * features};
}

void round_matrix(benchmark::State& state, int64_t channels, int64_t features, bool factor_too,
                  at::ScalarType products) {
  const InputStatistics input = random_statistics(features);
  const at::Tensor w_OI = at::randn({channels, features});
  GptqOptions options;
  options.products = products;
  const HessianFactor shared = factor_hessian(input, options.factor);
  kernels::measure_against(
      state, "product", w_OI.numel() * 4,
      [&] {
        const HessianFactor factor = factor_too ? factor_hessian(input, options.factor) : shared;
        gptq(factor.to_order(w_OI), 4, factor, options);
      },
      [&] { benchmark::DoNotOptimize(at::matmul(w_OI, input.hessian_II)); });
}

const bool kRegistered = [] {
  for (const auto& [channels, features] : {std::pair{2048, 7168}, std::pair{7168, 2048}}) {
    const auto add = [&](const char* variant, bool factor_too, at::ScalarType products) {
      const std::string name = fmt::format("gptq/{}x{}{}", channels, features, variant);
      benchmark::RegisterBenchmark(name.c_str(), round_matrix, channels, features, factor_too,
                                   products)
          ->Iterations(1)
          ->UseManualTime()
          ->Unit(benchmark::kSecond);
    };
    add("", false, at::kFloat);
    add("/with_factor", true, at::kFloat);
    add("/bf16", false, at::kBFloat16);
  }
  return true;
}();

}  // namespace
}  // namespace blockptq
