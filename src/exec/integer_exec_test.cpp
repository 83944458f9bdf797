// Integer execution against its floating-point twin.
#include "exec/integer_exec.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "exec/fake_quant_exec.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

Recipe recipe() {
  return Recipe()
      .with_rule({{"role", "quantized*"}, {"weight_bits", 8}, {"activation_bits", 8}})
      .with_cache("kv_latent", {8, 32, false})
      .with_cache("indexer_key", {8, 0, true});
}

/// A linear as both work with it.
struct Linear {
  Linear(const std::string& name, int bits) {
    const at::Tensor w_OI = at::randn({96, 200});
    const QTensor codes = quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
    integer = {name, name, {}, pack(codes)};
    twin = {name, name, codes.dequantize(at::kFloat)};
  }
  Weight integer;
  Weight twin;
};

double relative_difference(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

class IntegerExecTest : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(7); }

  QuantExec::Factors factors_{{"quantized.b", at::full({1}, 0.8F)}};
  IntegerExec exec_{recipe(), factors_};
  FakeQuantExec twin_{recipe(), factors_};
};

TEST_F(IntegerExecTest, LinearsEqualTheTwinsButForRounding) {
  for (const int bits : {4, 8}) {
    for (const char* name : {"quantized.a", "quantized.b"}) {
      const Linear linear(name, bits);
      const at::Tensor x = at::randn({50, 200});
      const Site site = Site::before(linear.twin);
      const at::Tensor y = exec_.linear(linear.integer, exec_.input(site, x));
      const at::Tensor expected = twin_.linear(linear.twin, twin_.input(site, x));
      EXPECT_LE(relative_difference(y, expected), 1e-6) << name << ", " << bits << " bits";
      EXPECT_LE(relative_difference(exec_.linear(linear.integer.rows(10, 50), exec_.input(site, x)),
                                    expected.slice(1, 10, 50)),
                1e-6);
    }
  }
}

TEST_F(IntegerExecTest, RoundedOnceTheTwinIsTheSame) {
  const IntegerExec exact(recipe(), factors_, value_linear);
  for (const char* name : {"quantized.a", "quantized.b"}) {
    const Linear linear(name, 4);
    const at::Tensor x = at::randn({50, 200});
    const Site site = Site::before(linear.integer);
    EXPECT_TRUE(at::allclose(exact.linear(linear.integer, exact.input(site, x)),
                             exec_.linear(linear.integer, exec_.input(site, x)), /*rtol=*/0,
                             /*atol=*/1e-12));
  }
}

TEST_F(IntegerExecTest, LearnedFactorsClip) {
  const Linear a("quantized.a", 8);
  Weight b = a.integer;
  b.name = "quantized.b";
  const at::Tensor x = at::randn({5, 200});
  EXPECT_FALSE(at::equal(exec_.linear(a.integer, exec_.input(Site::before(a.integer), x)),
                         exec_.linear(b, exec_.input(Site::before(b), x))));
}

TEST_F(IntegerExecTest, UnquantizedLinearsReadTheActivationAsItIs) {
  const Linear quantized("quantized.a", 8);
  const Weight plain{"plain", "plain", at::randn({30, 200})};
  const at::Tensor x = at::randn({50, 200});
  const at::Tensor expected = at::linear(x, plain.value);
  const Site site = Site::before(quantized.twin);
  EXPECT_TRUE(at::equal(exec_.linear(plain, exec_.input(site, x)), expected));
  EXPECT_TRUE(at::equal(twin_.linear(plain, twin_.input(site, x)), expected));
}

TEST_F(IntegerExecTest, QuantizedLinearsBehindOtherSitesQuantizeForThemselves) {
  const Linear quantized("quantized.a", 8);
  const at::Tensor x = at::randn({50, 200});
  const at::Tensor prepared =
      exec_.linear(quantized.integer, exec_.input(Site::before(quantized.integer), x));
  EXPECT_TRUE(at::equal(exec_.linear(quantized.integer, {x}), prepared));
  EXPECT_LE(relative_difference(twin_.linear(quantized.twin, {x}), prepared), 1e-6);
}

TEST_F(IntegerExecTest, CachePointsEqualTheTwins) {
  const at::Tensor x = at::randn({50, 128});
  for (const SiteKind kind : {SiteKind::kv_latent, SiteKind::indexer_key, SiteKind::value_cache}) {
    const Site site{kind, "any", "any"};
    EXPECT_TRUE(at::equal(exec_.point(site, x), twin_.point(site, x)));
    EXPECT_EQ(at::equal(exec_.point(site, x), x), kind == SiteKind::value_cache);
  }
}

}  // namespace
}  // namespace blockptq
