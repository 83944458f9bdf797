// Benchmarks as ratios: the time of a baseline in the same run over the time of the work, so that
// the number means the same on another machine and bears with a loaded one.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace blockptq::kernels {

template <typename Function>
double seconds_of(Function&& function) {
  const auto start = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs baseline() and work() in turn. Reports the time of work(), `bytes` over the median of it,
/// and as counter `vs_<name>` the median over the iterations of time(baseline) / time(work): 2
/// means twice as fast as the baseline.
template <typename Work, typename Baseline>
void measure_against(benchmark::State& state, const std::string& name, int64_t bytes, Work&& work,
                     Baseline&& baseline) {
  std::vector<double> times;
  std::vector<double> ratios;
  for ([[maybe_unused]] auto _ : state) {
    const double baseline_time = seconds_of(baseline);
    times.push_back(seconds_of(work));
    ratios.push_back(baseline_time / times.back());
    benchmark::ClobberMemory();
    state.SetIterationTime(times.back());
  }
  const auto median = [](std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  };
  state.counters["vs_" + name] = median(ratios);
  state.counters["GB/s"] = static_cast<double>(bytes) * 1e-9 / median(times);
}

}  // namespace blockptq::kernels
