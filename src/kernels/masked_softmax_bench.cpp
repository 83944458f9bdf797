#include <random>
#include <string>
#include <vector>

#include "kernels/bench_support.h"
#include "kernels/masked_softmax.h"
#include "kernels/reference/masked_softmax_reference.h"

namespace blockptq::kernels {
namespace {

constexpr int64_t kHeads = 4;
constexpr int64_t kQueries = 16;
constexpr int64_t kKeys = 4096;

/// The last queries of a sequence, fp32 scores, against the scalar version.
void probabilities(benchmark::State& state, Isa isa, FloatType out_type, bool with_bytes) {
  if (!use_isa(state, isa)) {
    return;
  }
  constexpr int64_t kCount = kHeads * kQueries * kKeys;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> scores(kCount);
  for (float& score : scores) {
    score = normal(random);
  }
  std::vector<uint8_t> bytes(kQueries * kKeys);
  for (uint8_t& byte : bytes) {
    byte = static_cast<uint8_t>(random() % 2);
  }
  const Visibility visible = {.bytes = with_bytes ? bytes.data() : nullptr,
                              .stride = kKeys,
                              .first_query = kKeys - kQueries};
  std::vector<uint8_t> out(static_cast<size_t>(kCount * element_size(out_type)));
  std::vector<float> row(kKeys);
  measure_against(
      state, "scalar", kCount * 4,
      [&] {
        masked_softmax(scores.data(), FloatType::f32, kHeads, kQueries, kKeys, 0.1F, visible,
                       out_type, out.data());
      },
      [&] {
        masked_softmax_reference(scores.data(), FloatType::f32, kHeads, kQueries, kKeys, 0.1F,
                                 visible, out_type, out.data(), row.data());
      });
}

const bool kRegistered = [] {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::scalar}) {
    for (const FloatType out_type : {FloatType::f32, FloatType::bf16}) {
      for (const bool with_bytes : {false, true}) {
        const std::string name = "masked_softmax/" + std::string(isa_name(isa)) + "/" +
                                 type_name(out_type) + (with_bytes ? "/bytes" : "/causal");
        register_kernel(name, 51, probabilities, isa, out_type, with_bytes)
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace blockptq::kernels
