// Channels do not see each other: some of them at a time, so that what is made of a weight on the
// way to its codes takes little memory.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "base/system.h"
#include "quant/grid.h"
#include "quant/target_weight.h"

namespace blockptq {

/// Some channels of a weight.
struct Slab {
  int64_t row = 0;
  int64_t count = 0;

  /// Their part of x: [O], [O, ...] or a weight, which becomes fp32.
  at::Tensor operator()(const at::Tensor& x) const { return x.narrow(0, row, count); }
  at::Tensor operator()(const TargetWeight& weight) const { return weight.narrow(row, count); }
};

/// Calls work(slab) with channels of a weight of `channels` x `features`, as many at a time as go
/// together under `scales` scales each. A GPU, where the time goes into launches, takes 64 times as
/// many as a CPU. Stops where the user stops the program.
template <typename Work>
void for_slabs(const at::Tensor& w_OI, int64_t scales, const Work& work) {
  constexpr int64_t kAligned = 64;  // products of aligned rows are up to 1.4 times faster
  const int64_t elements = int64_t{1} << (w_OI.is_cpu() ? 22 : 28);
  const int64_t channels =
      std::max(kAligned, elements / (scales * w_OI.size(1)) / kAligned * kAligned);
  for (int64_t row = 0; row < w_OI.size(0); row += channels) {
    check_stop();
    work(Slab{row, std::min(channels, w_OI.size(0) - row)});
  }
}

/// The codes of every slab under the scales [count] that scales_of(w_RI, slab) finds for it; w_RI:
/// the slab in fp32.
template <typename Scales>
QTensor quantize_slabs(const TargetWeight& weight, int bits, const Scales& scales_of) {
  const at::Tensor& value_OI = weight.value();
  QTensor whole{at::empty(value_OI.sizes(), value_OI.options().dtype(at::kChar)),
                at::empty({value_OI.size(0)}, value_OI.options().dtype(at::kFloat)), bits};
  for_slabs(value_OI, /*scales=*/1, [&](const Slab& slab) {
    const at::Tensor w_RI = slab(weight);
    const QTensor part = quantize_weight(w_RI, bits, scales_of(w_RI, slab));
    slab(whole.scales_O).copy_(part.scales_O);
    slab(whole.codes_OI).copy_(part.codes_OI);
  });
  return whole;
}

}  // namespace blockptq
