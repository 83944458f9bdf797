#include "nn/router.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace blockptq::nn {
namespace {

struct Choice {
  std::set<int64_t> experts;
  std::vector<double> scores;  ///< of all experts
};

std::vector<int64_t> best(const std::vector<double>& scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
  order.resize(count);
  return order;
}

/// The choice for one token by the text of arXiv 2412.19437, 2.1.2, in fp64.
Choice choose(const at::Tensor& x_D, const at::Tensor& weight_ED, const at::Tensor& bias_E,
              const GroupLimitedRouter::Spec& spec) {
  const int64_t experts = weight_ED.size(0);
  const int64_t per_group = experts / spec.groups;
  Choice choice;
  std::vector<double> biased;
  for (int64_t e = 0; e < experts; ++e) {
    const double logit = (weight_ED[e].to(at::kDouble) * x_D.to(at::kDouble)).sum().item<double>();
    choice.scores.push_back(1 / (1 + std::exp(-logit)));
    biased.push_back(choice.scores.back() + bias_E[e].item<double>());
  }
  std::vector<double> group_scores;
  for (int64_t g = 0; g < spec.groups; ++g) {
    std::vector<double> members(biased.begin() + g * per_group,
                                biased.begin() + (g + 1) * per_group);
    std::sort(members.rbegin(), members.rend());
    group_scores.push_back(members[0] + members[1]);
  }
  const auto kept = best(group_scores, spec.top_groups);
  for (int64_t e = 0; e < experts; ++e) {
    if (std::find(kept.begin(), kept.end(), e / per_group) == kept.end()) {
      biased[e] = -1e9;
    }
  }
  const auto chosen = best(biased, spec.top_k);
  choice.experts = {chosen.begin(), chosen.end()};
  return choice;
}

TEST(GroupLimitedRouter, ChoiceAndWeightsEqualTheText) {
  at::manual_seed(3);
  const GroupLimitedRouter::Spec spec{4, 4, 2, true, 2.5};
  const at::Tensor weight = at::randn({16, 12});
  const at::Tensor bias = at::randn({16}) * 0.3;
  const at::Tensor x = at::randn({50, 12});
  const Routing routing = GroupLimitedRouter(spec, weight, bias).route(x);
  for (int64_t t = 0; t < 50; ++t) {
    const Choice expected = choose(x[t], weight, bias, spec);
    double sum = 0;
    for (const int64_t e : expected.experts) {
      sum += expected.scores[e];
    }
    for (int64_t k = 0; k < spec.top_k; ++k) {
      const auto expert = routing.experts_TK[t][k].item<int64_t>();
      EXPECT_TRUE(expected.experts.contains(expert)) << "token " << t;
      EXPECT_NEAR(routing.weights_TK[t][k].item<double>(), 2.5 * expected.scores[expert] / sum,
                  1e-5);
    }
  }
}

TEST(GroupLimitedRouter, BiasChoosesButDoesNotWeigh) {
  const at::Tensor weight = at::zeros({8, 2});
  at::Tensor bias = at::zeros({8});
  bias[5] = 1;
  const Routing routing =
      GroupLimitedRouter({1, 1, 1, true, 1.5}, weight, bias).route(at::ones({3, 2}));
  EXPECT_TRUE(routing.experts_TK.eq(5).all().item<bool>());
  // A single expert is not normalised: sigmoid(0) * scaling.
  EXPECT_NEAR(routing.weights_TK[0][0].item<double>(), 0.75, 1e-6);
}

/// exp(w_e . x) / sum over all experts, in fp64.
std::vector<double> probabilities(const at::Tensor& x_D, const at::Tensor& weight_ED) {
  std::vector<double> p;
  double sum = 0;
  for (int64_t e = 0; e < weight_ED.size(0); ++e) {
    p.push_back(std::exp((weight_ED[e].to(at::kDouble) * x_D).sum().item<double>()));
    sum += p.back();
  }
  std::transform(p.begin(), p.end(), p.begin(), [&](double value) { return value / sum; });
  return p;
}

void expect_most_probable(int64_t top_k, bool normalize) {
  at::manual_seed(4);
  const at::Tensor weight = at::randn({10, 6});
  const at::Tensor x = at::randn({20, 6});
  const Routing routing = SoftmaxRouter({top_k, normalize}, weight).route(x);
  for (int64_t t = 0; t < 20; ++t) {
    const std::vector<double> p = probabilities(x[t], weight);
    const std::vector<int64_t> chosen = best(p, top_k);
    double sum = 0;
    for (const int64_t expert : chosen) {
      sum += p[expert];
    }
    for (int64_t k = 0; k < top_k; ++k) {
      EXPECT_EQ(routing.experts_TK[t][k].item<int64_t>(), chosen[k]);
      EXPECT_NEAR(routing.weights_TK[t][k].item<double>(), p[chosen[k]] / (normalize ? sum : 1),
                  1e-6);
    }
  }
}

TEST(SoftmaxRouter, WeightsAreProbabilities) {
  expect_most_probable(3, false);
}

TEST(SoftmaxRouter, NormalisedWeightsSumToOne) {
  expect_most_probable(3, true);
  expect_most_probable(1, true);
}

TEST(SoftmaxRouter, ScoresAreFp32WhateverTheTypeOfX) {
  const at::Tensor weight = at::randn({8, 16});
  const at::Tensor x = at::randn({5, 16}).to(at::kBFloat16);
  const SoftmaxRouter router({2, true}, weight);
  EXPECT_TRUE(at::equal(router.route(x).weights_TK, router.route(x.to(at::kFloat)).weights_TK));
}

}  // namespace
}  // namespace blockptq::nn
