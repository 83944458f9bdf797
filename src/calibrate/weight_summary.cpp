#include "calibrate/weight_summary.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "quant/algorithms/slabs.h"
#include "tensor/parallel.h"

namespace blockptq {
namespace {

constexpr int kBins = 32;
constexpr int kMiddle = kBins / 2;
constexpr float kRange = 1.25F;

struct Sums {
  double error = 0;
  double norm = 0;
  std::array<int64_t, kBins> weights{};
  std::array<int64_t, kBins> codes{};

  /// One channel: `to_bin` turns a weight into bins, `first` and `shift` a code.
  void add_row(const float* w, const int8_t* q, int64_t columns, float scale, float to_bin,
               int first, int shift) {
    for (int64_t i = 0; i < columns; ++i) {
      const float difference = w[i] - scale * static_cast<float>(q[i]);
      error += static_cast<double>(difference) * difference;
      norm += static_cast<double>(w[i]) * w[i];
      // Clamped before the cast, a NaN to 0: what lies far beyond the grid fits no integer.
      const float bin = std::min(std::max(0.0F, w[i] * to_bin + kMiddle), kBins - 1.0F);
      ++weights[static_cast<size_t>(bin)];
      ++codes[static_cast<size_t>((q[i] - first) >> shift)];
    }
  }

  void add(const Sums& other) {
    error += other.error;
    norm += other.norm;
    for (size_t bin = 0; bin < kBins; ++bin) {
      weights[bin] += other.weights[bin];
      codes[bin] += other.codes[bin];
    }
  }
};

}  // namespace

Json summarize_weight(std::string_view name, const TargetWeight& weight, const QTensor& q) {
  BPTQ_ASSERT(weight.value().sizes() == q.codes_OI.sizes());
  const int shift = std::max(q.bits - 5, 0);
  const int first = static_cast<int>(q_min(std::max(q.bits, 4)));
  const auto largest_code = static_cast<float>(q_max(q.bits));
  Sums total;
  std::mutex mutex;
  for_slabs(weight.value(), /*scales=*/1, [&](const Slab& slab) {
    const at::Tensor w = slab(weight).cpu().contiguous();
    const at::Tensor codes = slab(q.codes_OI).cpu().contiguous();
    const at::Tensor scales = slab(q.scales_O).cpu().contiguous();
    const int64_t columns = w.size(1);
    parallel_rows(w.size(0), columns, [&](int64_t begin, int64_t end) {
      Sums part;
      for (int64_t o = begin; o < end; ++o) {
        const float scale = scales.const_data_ptr<float>()[o];
        part.add_row(w.const_data_ptr<float>() + o * columns,
                     codes.const_data_ptr<int8_t>() + o * columns, columns, scale,
                     kBins / (2 * kRange) / (scale * largest_code), first, shift);
      }
      const std::lock_guard lock(mutex);
      total.add(part);
    });
  });
  const std::vector<int64_t> code_histogram(total.codes.begin(),
                                            total.codes.begin() + (q.bits <= 4 ? kMiddle : kBins));
  return {{"name", name},
          {"bits", q.bits},
          {"relative_error", total.norm > 0 ? total.error / total.norm : 0},
          {"weight_histogram", total.weights},
          {"code_histogram", code_histogram}};
}

}  // namespace blockptq
