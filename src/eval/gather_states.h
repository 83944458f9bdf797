// Tensors whose first dimension is spread over ranks: each has a range of it, in their order.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "base/ranks.h"

namespace blockptq {

/// The parts of all ranks, one after the other, on the CPU of rank `root`; undefined elsewhere.
at::Tensor gather_rows(Ranks& ranks, const at::Tensor& part, int root);
/// The same on every rank.
at::Tensor gather_rows(Ranks& ranks, const at::Tensor& part);

/// Fills `part` (contiguous, on the CPU) with this rank's range of what `root` has; `whole` counts
/// there only.
void scatter_rows(Ranks& ranks, const at::Tensor& whole, at::Tensor& part, int root);
/// This rank's range, of shape `own`, of what `root` has; `whole` itself where ranks have no
/// ranges.
at::Tensor own_rows(Ranks& ranks, const at::Tensor& whole, at::IntArrayRef own, at::ScalarType type,
                    int root);

}  // namespace blockptq
