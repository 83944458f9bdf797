#include "nn/attend.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace blockptq::nn {
namespace {

/// Softmax attention of one query, written out in fp64.
at::Tensor one_query(const at::Tensor& q_K, const at::Tensor& k_SK, const at::Tensor& v_SV,
                     const at::Tensor& visible_S, double scale) {
  std::vector<double> weights;
  double sum = 0;
  for (int64_t j = 0; j < k_SK.size(0); ++j) {
    double dot = 0;
    for (int64_t d = 0; d < q_K.size(0); ++d) {
      dot += q_K[d].item<double>() * k_SK[j][d].item<double>();
    }
    weights.push_back(visible_S[j].item<bool>() ? std::exp(scale * dot) : 0.0);
    sum += weights.back();
  }
  at::Tensor out = at::zeros({v_SV.size(1)}, at::kDouble);
  for (int64_t j = 0; j < k_SK.size(0); ++j) {
    out += v_SV[j].to(at::kDouble) * (weights[j] / sum);
  }
  return out;
}

void expect_naive(int64_t heads, int64_t tokens, bool sparse, int64_t workspace_bytes,
                  int64_t repeats = 1) {
  at::manual_seed(7);
  const at::Tensor q = at::randn({heads, tokens, 6});
  const at::Tensor k = at::randn({heads / repeats, tokens, 6});
  const at::Tensor v = at::randn({heads / repeats, tokens, 5});
  at::Tensor visible = at::ones({tokens, tokens}, at::kBool).tril();
  if (sparse) {
    visible = visible.logical_and(at::rand({tokens, tokens}) < 0.5)
                  .logical_or(at::eye(tokens, at::kBool));
  }
  const at::Tensor found = attend(q, k, v, sparse ? visible : at::Tensor(), 0.4, workspace_bytes);
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t t = 0; t < tokens; ++t) {
      const at::Tensor expected =
          one_query(q[h][t], k[h / repeats], v[h / repeats], visible[t], 0.4);
      EXPECT_LE((found[t][h].to(at::kDouble) - expected).abs().max().item<double>(), 1e-5)
          << "head " << h << " token " << t;
    }
  }
}

TEST(Attend, CausalEqualsTheFormula) {
  expect_naive(2, 17, false, 1 << 20);
}

TEST(Attend, SelectedKeysEqualTheFormula) {
  expect_naive(3, 13, true, 1 << 20);
}

TEST(Attend, TilesOfOneQuery) {
  expect_naive(2, 9, true, 1);
}

TEST(Attend, QueryHeadsShareKeysAndValues) {
  expect_naive(6, 11, false, 1 << 20, /*repeats=*/3);
  expect_naive(4, 11, true, 4 * 4 * 11 * 2, /*repeats=*/2);  // tiles of two queries
  expect_naive(5, 7, false, 1, /*repeats=*/5);
}

TEST(Attend, HiddenKeysDoNotCount) {
  const at::Tensor q = at::randn({1, 4, 8});
  at::Tensor k = at::randn({1, 4, 8});
  at::Tensor v = at::randn({1, 4, 8});
  const at::Tensor before = attend(q, k, v, {}, 1.0, 1 << 20);
  k[0][3].fill_(1e4);
  v[0][3].fill_(1e4);
  const at::Tensor after = attend(q, k, v, {}, 1.0, 1 << 20);
  EXPECT_TRUE(at::equal(before.slice(0, 0, 3), after.slice(0, 0, 3)));
}

}  // namespace
}  // namespace blockptq::nn
