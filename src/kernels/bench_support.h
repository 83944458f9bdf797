// What the benchmarks of kernels share.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/bench_ratio.h"
#include "kernels/dispatch.h"
#include "kernels/types.h"

namespace blockptq::kernels {

/// Sets the level for one benchmark (see register_kernel); false (and the benchmark is skipped)
/// when the CPU lacks it.
inline bool use_isa(benchmark::State& state, Isa isa) {
  set_isa(isa);
  if (active_isa() != isa) {
    state.SkipWithError("this CPU lacks the level");
    return false;
  }
  return true;
}

inline const char* type_name(FloatType type) {
  return type == FloatType::f32 ? "f32" : type == FloatType::bf16 ? "bf16" : "f16";
}

/// The level that the program was started with.
inline Isa initial_isa() {
  static const Isa isa = active_isa();
  return isa;
}

/// Registers function(state, isa, arguments...), which measures its own time, as `name`; what runs
/// after it has the initial level again.
template <typename Function, typename... Arguments>
benchmark::internal::Benchmark* register_kernel(const std::string& name, int iterations,
                                                Function&& function, Isa isa,
                                                Arguments... arguments) {
  initial_isa();
  return benchmark::RegisterBenchmark(name.c_str(), function, isa, arguments...)
      ->Teardown([](const benchmark::State& /*state*/) { set_isa(initial_isa()); })
      ->Iterations(isa == Isa::scalar ? 5 : iterations)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

/// Calls work(begin, end) on `threads` threads that share [0, count).
template <typename Work>
void on_threads(int64_t threads, int64_t count, const Work& work) {
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back(work, count * i / threads, count * (i + 1) / threads);
  }
  work(0, count / threads);
  for (std::thread& other : others) {
    other.join();
  }
}

/// As many input and output buffers as together are far larger than a cache, used in turn.
class ColdBuffers {
 public:
  ColdBuffers(int64_t in_size, int64_t out_size) {
    constexpr int64_t kTotal = 400'000'000;
    const int64_t count = 2 + kTotal / (in_size + out_size);
    for (int64_t i = 0; i < count; ++i) {
      in_.emplace_back(in_size, static_cast<uint8_t>(0x31 + i % 16));
      out_.emplace_back(out_size, static_cast<uint8_t>(i));
    }
  }
  void next() { at_ = (at_ + 1) % in_.size(); }
  const uint8_t* in() const { return in_[at_].data(); }
  uint8_t* out() { return out_[at_].data(); }
  /// memcpy of bytes [begin, end) of an output that was not used lately to another.
  void copy_output(int64_t begin, int64_t end) {
    const std::vector<uint8_t>& from = out_[(at_ + in_.size() / 2) % in_.size()];
    uint8_t* to = out_[(at_ + in_.size() / 2 + 1) % in_.size()].data();
    std::memcpy(to + begin, from.data() + begin, static_cast<size_t>(end - begin));
  }

 private:
  size_t at_ = 0;
  std::vector<std::vector<uint8_t>> in_;
  std::vector<std::vector<uint8_t>> out_;
};

}  // namespace blockptq::kernels
