// The relative error of what was written.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace blockptq {

/// Sums of squares of a difference and of what it is relative to.
class ErrorSum {
 public:
  void add(const std::vector<float>& expected, const std::vector<float>& found, int64_t count) {
    constexpr int64_t kRun = 4096;  // summed in fp32
    for (int64_t begin = 0; begin < count; begin += kRun) {
      add_run(expected.data() + begin, found.data() + begin, std::min(kRun, count - begin));
    }
  }
  double relative() const { return error_ == 0 ? 0 : std::sqrt(error_ / total_); }

 private:
  void add_run(const float* expected, const float* found, int64_t count) {
    constexpr int64_t kLanes = 16;
    std::array<float, kLanes> error{};
    std::array<float, kLanes> total{};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const float difference = expected[i + lane] - found[i + lane];
        error[lane] += difference * difference;
        total[lane] += expected[i + lane] * expected[i + lane];
      }
    }
    for (; i < count; ++i) {
      const float difference = expected[i] - found[i];
      error[0] += difference * difference;
      total[0] += expected[i] * expected[i];
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      error_ += static_cast<double>(error[lane]);
      total_ += static_cast<double>(total[lane]);
    }
  }

  double error_ = 0;
  double total_ = 0;
};

}  // namespace blockptq
