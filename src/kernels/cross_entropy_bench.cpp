#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/convert.h"
#include "kernels/cross_entropy.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kTokens = 64;
constexpr int64_t kWidth = 4096;  // a tile of 1 MB in fp32

/// The straightforward way, on fp32.
void scalar_softmax(const std::vector<float>& logits, std::vector<SoftmaxStats>& stats) {
  for (int64_t t = 0; t < kTokens; ++t) {
    const float* row = logits.data() + t * kWidth;
    SoftmaxStats part;
    for (int64_t i = 0; i < kWidth; ++i) {
      part.max = row[i] > part.max ? row[i] : part.max;
    }
    for (int64_t i = 0; i < kWidth; ++i) {
      part.sum += std::exp(row[i] - part.max);
    }
    merge_softmax(part, stats[static_cast<size_t>(t)]);
  }
}

/// A tile that lies in the cache, against the scalar loop on the same logits.
void softmax_tile(benchmark::State& state, Isa isa, FloatType type) {
  if (!use_isa(state, isa)) {
    return;
  }
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kTokens * kWidth);
  for (float& logit : logits) {
    logit = normal(random);
  }
  const int64_t size = kTokens * kWidth * element_size(type);
  std::vector<uint8_t> tile(static_cast<size_t>(size));
  convert(logits.data(), FloatType::f32, kTokens * kWidth, type, tile.data());
  std::vector<SoftmaxStats> stats(kTokens);
  measure_against(
      state, "scalar", size,
      [&] { accumulate_softmax(tile.data(), type, kTokens, kWidth, kWidth, stats.data()); },
      [&] { scalar_softmax(logits, stats); });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType type : {FloatType::f32, FloatType::bf16, FloatType::f16}) {
      const std::string name = "softmax/" + std::string(isa_name(isa)) + "/" + type_name(type);
      register_kernel(name, 101, softmax_tile, isa, type)->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
