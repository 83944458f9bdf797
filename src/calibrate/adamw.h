// AdamW (arXiv 1711.05101) with PyTorch's defaults, and its cosine schedule.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace blockptq {

/// betas 0.9 and 0.999, eps 1e-8.
class AdamW {
 public:
  /// `params`: fp32 leaves that require gradients; changed in place by step().
  AdamW(std::vector<at::Tensor> params, double weight_decay);

  /// One step with the gradients that the parameters hold, which are dropped. A parameter without
  /// gradient stays as it is.
  void step(double lr);

 private:
  std::vector<at::Tensor> params_;
  std::vector<at::Tensor> means_;
  std::vector<at::Tensor> squares_;
  std::vector<at::Tensor> steps_;
  double weight_decay_;
};

/// The learning rate of `step` (from 0) on half a cosine from `max` down to `min` at `total`.
double cosine_lr(int64_t step, int64_t total, double max, double min);

}  // namespace blockptq
