#include "calibrate/adamw.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.999;
constexpr double kEps = 1e-8;

}  // namespace

AdamW::AdamW(std::vector<at::Tensor> params, double weight_decay)
    : params_(std::move(params)), weight_decay_(weight_decay) {
  for (const at::Tensor& param : params_) {
    BPTQ_ASSERT(param.is_leaf() && param.requires_grad() && param.scalar_type() == at::kFloat);
    means_.push_back(at::zeros_like(param.detach()));
    squares_.push_back(at::zeros_like(param.detach()));
    steps_.push_back(at::zeros({}, param.detach().options()));
  }
}

void AdamW::step(double lr) {
  const c10::NoGradGuard no_grad;
  std::vector<at::Tensor> params;
  std::vector<at::Tensor> gradients;
  std::vector<at::Tensor> means;
  std::vector<at::Tensor> squares;
  std::vector<at::Tensor> steps;
  for (size_t i = 0; i < params_.size(); ++i) {
    if (params_[i].grad().defined()) {
      params.push_back(params_[i]);
      gradients.push_back(std::exchange(params_[i].mutable_grad(), {}));
      means.push_back(means_[i]);
      squares.push_back(squares_[i]);
      steps.push_back(steps_[i].add_(1));
    }
  }
  if (!params.empty()) {
    at::_fused_adamw_(params, gradients, means, squares, /*max_exp_avg_sqs=*/{}, steps, lr, kBeta1,
                      kBeta2, weight_decay_, kEps, /*amsgrad=*/false, /*maximize=*/false);
  }
}

double cosine_lr(int64_t step, int64_t total, double max, double min) {
  const double angle = std::numbers::pi * static_cast<double>(step) / static_cast<double>(total);
  return min + (max - min) * (1 + std::cos(angle)) / 2;
}

}  // namespace blockptq
