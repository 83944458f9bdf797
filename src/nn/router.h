// Which experts a token goes to, and with what weight. Scores in fp32 whatever the type of x.
//
// Shapes: T tokens, D hidden, E experts, K experts per token, G groups.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace blockptq::nn {

struct Routing {
  at::Tensor experts_TK;  ///< int64
  at::Tensor weights_TK;  ///< fp32
};

class Router {
 public:
  Router() = default;
  virtual ~Router() = default;
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;
  virtual Routing route(const at::Tensor& x_TD) const = 0;
};

/// The group-limited sigmoid router of DeepSeek-V3 (arXiv 2412.19437, 2.1.2): the bias of loss-free
/// balancing takes part in the choice, not in the weights; a group's score is the sum of its two
/// best biased scores.
class GroupLimitedRouter final : public Router {
 public:
  struct Spec {
    int64_t top_k = 0;
    int64_t groups = 1;      ///< divides E
    int64_t top_groups = 1;  ///< groups that stay in the choice
    bool normalize = true;   ///< weights of a token sum to `scaling`
    double scaling = 1;
  };
  /// weight_ED and bias_E: fp32.
  GroupLimitedRouter(Spec spec, at::Tensor weight_ED, at::Tensor bias_E);
  Routing route(const at::Tensor& x_TD) const override;

 private:
  Spec spec_;
  at::Tensor weight_ED_;
  at::Tensor bias_E_;
};

/// The softmax router of Qwen3-MoE (arXiv 2505.09388, section 2) and of most others: the K most
/// probable experts, with their probabilities as weights.
class SoftmaxRouter final : public Router {
 public:
  struct Spec {
    int64_t top_k = 0;
    bool normalize = false;  ///< weights of a token sum to 1
  };
  /// weight_ED: fp32.
  SoftmaxRouter(Spec spec, at::Tensor weight_ED);
  Routing route(const at::Tensor& x_TD) const override;

 private:
  Spec spec_;
  at::Tensor weight_ED_;
};

}  // namespace blockptq::nn
