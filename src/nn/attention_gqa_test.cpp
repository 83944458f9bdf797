#include "nn/attention_gqa.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "nn/norm.h"

namespace blockptq::nn {
namespace {

constexpr int64_t kHidden = 24;

GqaSpec spec_of(int64_t heads, int64_t kv_heads) {
  GqaSpec spec;
  spec.heads = heads;
  spec.kv_heads = kv_heads;
  spec.head_dim = 8;
  spec.rope.dim = 8;
  return spec;
}

GqaAttention::Weights random_weights(const GqaSpec& spec, bool norms) {
  at::manual_seed(11);
  const int64_t q_dim = spec.heads * spec.head_dim;
  const int64_t kv_dim = spec.kv_heads * spec.head_dim;
  GqaAttention::Weights weights{{"b.q_proj", "attention.q_proj", at::randn({q_dim, kHidden})},
                                {"b.k_proj", "attention.k_proj", at::randn({kv_dim, kHidden})},
                                {"b.v_proj", "attention.v_proj", at::randn({kv_dim, kHidden})},
                                {"b.o_proj", "attention.o_proj", at::randn({kHidden, q_dim})},
                                {},
                                {}};
  if (norms) {
    weights.q_norm = at::rand({spec.head_dim}) + 0.5;
    weights.k_norm = at::rand({spec.head_dim}) + 0.5;
  }
  return weights;
}

/// x of one head (fp64), normalised by the formula where there is a norm, and turned by its
/// position: the pair (i, i + K / 2) by the angle t * theta^(-2i / K).
at::Tensor turned(at::Tensor x_TK, const at::Tensor& norm_K) {
  if (norm_K.defined()) {
    x_TK = x_TK / (x_TK.square().mean(-1, true) + 1e-6).sqrt() * norm_K;
  }
  const int64_t half = x_TK.size(1) / 2;
  const at::Tensor angle =
      at::outer(at::arange(x_TK.size(0), at::kDouble),
                at::pow(10000.0, at::arange(half, at::kDouble) / static_cast<double>(-half)));
  const at::Tensor a = x_TK.slice(1, 0, half);
  const at::Tensor b = x_TK.slice(1, half);
  return at::cat({a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()}, 1);
}

/// The attention head by head in fp64, keys and values repeated for the query heads that share
/// them.
at::Tensor composed(const at::Tensor& x_TD, const GqaSpec& spec, const GqaAttention::Weights& w) {
  const at::Tensor x = x_TD.to(at::kDouble);
  const int64_t dim = spec.head_dim;
  const auto head = [&](const Weight& weight, int64_t h) {
    return at::linear(x, weight.value.slice(0, h * dim, (h + 1) * dim).to(at::kDouble));
  };
  const at::Tensor hidden = at::ones({x.size(0), x.size(0)}, at::kBool).triu(1);
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < spec.heads; ++h) {
    const int64_t shared = h / (spec.heads / spec.kv_heads);
    const at::Tensor scores =
        at::mm(turned(head(w.q_proj, h), w.q_norm), turned(head(w.k_proj, shared), w.k_norm).t()) /
        std::sqrt(static_cast<double>(dim));
    const double never = -std::numeric_limits<double>::infinity();
    heads.push_back(
        at::mm(at::softmax(scores.masked_fill(hidden, never), -1), head(w.v_proj, shared)));
  }
  return at::linear(at::cat(heads, 1), w.o_proj.value.to(at::kDouble));
}

void expect_composed(int64_t heads, int64_t kv_heads, bool norms, int64_t workspace_bytes) {
  const GqaSpec spec = spec_of(heads, kv_heads);
  const auto weights = random_weights(spec, norms);
  const at::Tensor x = at::randn({13, kHidden});
  AttentionOptions options;
  options.workspace_bytes = workspace_bytes;
  const at::Tensor found = GqaAttention(spec, weights).forward(FloatExec(), x, options);
  const at::Tensor expected = composed(x, spec, weights);
  EXPECT_LE((found.to(at::kDouble) - expected).abs().max().item<double>(),
            1e-5 * expected.abs().max().item<double>());
}

TEST(GqaAttention, EqualsTheFormulaWithRepeatedKeys) {
  expect_composed(6, 2, true, 1 << 20);
  expect_composed(6, 2, false, 1 << 20);
}

TEST(GqaAttention, MultiHeadAndMultiQuery) {
  expect_composed(4, 4, true, 1 << 20);
  expect_composed(4, 1, true, 1 << 20);
}

TEST(GqaAttention, HeadByHeadInALittleWorkspace) {
  expect_composed(6, 3, true, 1);
}

TEST(GqaAttention, FusedEqualsTheOneWithGradients) {
  const GqaSpec spec = spec_of(4, 2);
  const GqaAttention attention(spec, random_weights(spec, true));
  const at::Tensor x = at::randn({9, kHidden});
  const at::Tensor leaf = x.clone().requires_grad_();
  const at::Tensor with_gradients = attention.forward(FloatExec(), leaf, {});
  EXPECT_TRUE(
      at::allclose(attention.forward(FloatExec(), x, {}), with_gradients.detach(), 1e-4, 1e-4));
  with_gradients.sum().backward();
  EXPECT_TRUE(leaf.grad().isfinite().all().item<bool>());
  EXPECT_GT(leaf.grad()[0].abs().max().item<double>(), 0);
}

/// Notes every site, and puts zeros in place of what passes the one of `zeroed`.
class Recorder final : public Exec {
 public:
  explicit Recorder(SiteKind zeroed = SiteKind::indexer_key) : zeroed_(zeroed) {}

  Activation input(const Site& site, const at::Tensor& x_TI) const override {
    seen.push_back(std::string(site.name) + " input");
    return {x_TI};
  }
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override {
    return at::linear(x_TI.value, weight.value);
  }
  at::Tensor point(const Site& site, const at::Tensor& x) const override {
    seen.push_back(fmt::format("{} {} [{}]", site.name, site.role, fmt::join(x.sizes(), ", ")));
    return site.kind == zeroed_ ? at::zeros_like(x) : x;
  }

  mutable std::vector<std::string> seen;

 private:
  SiteKind zeroed_;
};

TEST(GqaAttention, NamesItsSites) {
  const GqaSpec spec = spec_of(4, 2);
  const GqaAttention attention(spec, random_weights(spec, true));
  const Recorder exec;
  attention.forward(exec, at::randn({5, kHidden}), {});
  EXPECT_EQ(exec.seen,
            (std::vector<std::string>{"b.q_proj input", "b.k_proj attention.k_proj [5, 2, 8]",
                                      "b.v_proj attention.v_proj [5, 2, 8]", "b.o_proj input"}));
}

TEST(GqaAttention, ReadsKeysAndValuesFromTheirPoints) {
  const GqaSpec spec = spec_of(4, 2);
  const auto weights = random_weights(spec, true);
  const GqaAttention attention(spec, weights);
  const at::Tensor x = at::randn({5, kHidden});
  EXPECT_EQ(attention.forward(Recorder(SiteKind::value_cache), x, {}).abs().max().item<float>(), 0);
  // Without keys every earlier value counts the same: the last token sees the mean of all.
  const at::Tensor mean = at::linear(x, weights.v_proj.value).mean(0).view({2, 1, 8});
  const at::Tensor expected = at::linear(mean.expand({2, 2, 8}).flatten(), weights.o_proj.value);
  EXPECT_TRUE(at::allclose(attention.forward(Recorder(SiteKind::key_cache), x, {})[4], expected,
                           1e-4, 1e-4));
}

TEST(GqaAttention, RefusesSequencesBeyondTheSlidingWindow) {
  GqaSpec spec = spec_of(4, 2);
  spec.max_tokens = 5;
  const GqaAttention attention(spec, random_weights(spec, false));
  EXPECT_NO_THROW(attention.forward(FloatExec(), at::randn({5, kHidden}), {}));
  EXPECT_THROW(attention.forward(FloatExec(), at::randn({6, kHidden}), {}), Error);
}

}  // namespace
}  // namespace blockptq::nn
