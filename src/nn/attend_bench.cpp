#include <ATen/ATen.h>

#include <string>

#include "kernels/bench_ratio.h"
#include "nn/attend.h"

namespace blockptq::nn {
namespace {

constexpr int64_t kTokens = 1024;
constexpr int64_t kHeadDim = 128;

/// Query heads that share keys and values, against the same with keys and values repeated for each.
void grouped(benchmark::State& state, at::ScalarType type, int64_t heads, int64_t groups) {
  const at::Tensor q = at::randn({heads, kTokens, kHeadDim}).to(type);
  const at::Tensor k = at::randn({groups, kTokens, kHeadDim}).to(type);
  const at::Tensor v = at::randn({groups, kTokens, kHeadDim}).to(type);
  const int64_t repeats = heads / groups;
  kernels::measure_against(
      state, "repeated", static_cast<int64_t>((q.nbytes() + k.nbytes() + v.nbytes())),
      [&] { attend(q, k, v, {}, 0.1, kScoreTileBytes); },
      [&] {
        attend(q, k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0), {}, 0.1,
               kScoreTileBytes);
      });
}

const bool kRegistered = [] {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t groups : {1, 4, 8}) {
      const std::string name = "attend/" + std::string(type == at::kFloat ? "f32" : "bf16") +
                               "/16_heads_share_" + std::to_string(groups);
      benchmark::RegisterBenchmark(name.c_str(), grouped, type, int64_t{16}, groups)
          ->Iterations(9)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::nn
