#include "calibrate/weight_summary.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/grid.h"

namespace blockptq {
namespace {

QTensor rounded(const at::Tensor& w_OI, int bits) {
  return quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
}

TEST(WeightSummary, EqualsTheFormulaElementByElement) {
  for (const int bits : {2, 3, 4, 5, 8}) {
    const at::Tensor w_OI = at::randn({7, 33});
    const at::Tensor clip_O = at::full({7}, 0.6F);
    const QTensor q = quantize_weight(w_OI, bits, weight_scales(w_OI, bits, clip_O));
    double error = 0;
    double norm = 0;
    std::vector<int64_t> weights(32);
    std::vector<int64_t> codes(bits <= 4 ? 16 : 32);
    for (int64_t o = 0; o < 7; ++o) {
      const double scale = q.scales_O[o].item<double>();
      for (int64_t i = 0; i < 33; ++i) {
        const double value = w_OI[o][i].item<double>();
        const auto code = q.codes_OI[o][i].item<int64_t>();
        error += std::pow(value - scale * static_cast<double>(code), 2);
        norm += value * value;
        const double share = value / (scale * static_cast<double>(q_max(bits)));
        ++weights.at(
            static_cast<size_t>(std::clamp(std::floor((share + 1.25) / 2.5 * 32), 0.0, 31.0)));
        ++codes.at(static_cast<size_t>(bits <= 4 ? code + 8 : (code - q_min(bits)) >> (bits - 5)));
      }
    }
    const Json summary = summarize_weight("w", w_OI, q);
    EXPECT_NEAR(summary["relative_error"].get<double>(), error / norm, 1e-5 * error / norm);
    EXPECT_EQ(summary["weight_histogram"].get<std::vector<int64_t>>(), weights) << bits;
    EXPECT_EQ(summary["code_histogram"].get<std::vector<int64_t>>(), codes) << bits;
    EXPECT_EQ(summary["bits"], bits);
    EXPECT_EQ(summary["name"], "w");
  }
}

TEST(WeightSummary, CountsEveryElementOnAllThreads) {
  const at::Tensor w_OI = at::randn({512, 1000});
  const Json summary = summarize_weight("w", w_OI, rounded(w_OI, 4));
  for (const char* key : {"weight_histogram", "code_histogram"}) {
    int64_t sum = 0;
    for (const Json& count : summary[key]) {
      sum += count.get<int64_t>();
    }
    EXPECT_EQ(sum, w_OI.numel()) << key;
  }
}

TEST(WeightSummary, TakesZerosOutliersAndTransposedWeights) {
  const at::Tensor zeros = at::zeros({3, 5});
  EXPECT_EQ(summarize_weight("w", zeros, rounded(zeros, 8))["relative_error"], 0.0);

  at::Tensor w_OI = at::ones({1, 4});
  QTensor q = rounded(w_OI, 4);
  w_OI[0][0] = 1e30;
  w_OI[0][1] = -1e30;
  const Json summary = summarize_weight("w", w_OI, q);
  EXPECT_EQ(summary["weight_histogram"][0], 1);
  EXPECT_EQ(summary["weight_histogram"][31], 1);

  const at::Tensor w_IO = at::randn({6, 9});
  const at::Tensor transposed = w_IO.t();
  EXPECT_EQ(summarize_weight("w", transposed, rounded(transposed.contiguous(), 4)),
            summarize_weight("w", transposed.contiguous(), rounded(transposed.contiguous(), 4)));
}

}  // namespace
}  // namespace blockptq
