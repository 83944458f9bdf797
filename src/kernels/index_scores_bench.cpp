#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/index_scores.h"
#include "kernels/reference/index_scores_reference.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kQueries = 8;
constexpr int64_t kHeads = 64;
constexpr int64_t kKeys = 4096;

/// Dot products that lie in the last-level cache, against the scalar version or a copy of them.
void score(benchmark::State& state, Isa isa, bool against_copy) {
  if (!use_isa(state, isa)) {
    return;
  }
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> dots(kQueries * kHeads * kKeys);
  std::vector<float> copy(dots.size());
  for (float& dot : dots) {
    dot = normal(random);
  }
  const std::vector<float> weights(kQueries * kHeads, 0.1F);
  std::vector<float> out(kQueries * kKeys);
  const int64_t size = static_cast<int64_t>(dots.size()) * 4;
  const auto baseline = [&] {
    if (against_copy) {
      std::memcpy(copy.data(), dots.data(), static_cast<size_t>(size));
    } else {
      index_scores_reference(dots.data(), weights.data(), kQueries, kHeads, kKeys, out.data(),
                             kKeys);
    }
  };
  measure_against(
      state, against_copy ? "memcpy" : "scalar", size,
      [&] {
        index_scores(dots.data(), weights.data(), kQueries, kHeads, kKeys, out.data(), kKeys);
      },
      baseline);
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const bool against_copy : {false, true}) {
      const std::string name = "index_scores/" + std::string(isa_name(isa)) +
                               (against_copy ? "/against_copy" : "/against_scalar");
      register_kernel(name, 31, score, isa, against_copy)->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
