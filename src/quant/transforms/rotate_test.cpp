#include "quant/transforms/rotate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace blockptq {
namespace {

class RotationOf : public testing::TestWithParam<int64_t> {};

TEST_P(RotationOf, IsOrthogonalAndFlat) {
  const int64_t n = GetParam();
  const Rotation rotation(n, 7);
  const at::Tensor q = rotation.apply(at::eye(n));
  EXPECT_TRUE(at::allclose(at::matmul(q, q.t()), at::eye(n), 0, 2e-6));
  EXPECT_TRUE(at::allclose(rotation.apply_inverse(q), at::eye(n), 0, 2e-6));
  const double bound = std::sqrt(2.0 / static_cast<double>(n));  // 1/sqrt(n) for powers of two
  EXPECT_LE(q.abs().max().item<double>(), bound * (1 + 1e-6));
}

TEST_P(RotationOf, EqualsTheProductWithItsMatrix) {
  at::manual_seed(3);
  const int64_t n = GetParam();
  const Rotation rotation(n, 8);
  const at::Tensor q = rotation.apply(at::eye(n)).to(at::kDouble);
  const at::Tensor x = at::randn({5, n});
  const at::Tensor expected = at::matmul(x.to(at::kDouble), q);
  EXPECT_LT((rotation.apply(x) - expected).norm().item<double>(),
            1e-6 * expected.norm().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Sizes, RotationOf, testing::Values(1, 2, 7, 12, 56, 60, 256, 448, 1024));

TEST(Rotation, FoldedIntoReaderAndWriterKeepsTheFunction) {
  at::manual_seed(4);
  const int64_t hidden = 7168;
  const Rotation rotation(hidden, 9);
  const at::Tensor write_HI = at::randn({hidden, 16});
  const at::Tensor read_OH = at::randn({16, hidden});
  const at::Tensor h_TH = at::randn({8, hidden});
  const at::Tensor z_TI = at::randn({8, 16});
  const auto block = [&](const at::Tensor& h, const at::Tensor& write, const at::Tensor& read) {
    const at::Tensor stream = h + at::matmul(z_TI, write.t());
    const at::Tensor norm = stream * stream.square().mean(-1, /*keepdim=*/true).rsqrt();
    return at::matmul(norm, read.t());
  };
  const at::Tensor y = block(h_TH, write_HI, read_OH);
  const at::Tensor rotated =
      block(rotation.apply(h_TH), rotation.apply_left(write_HI), rotation.apply(read_OH));
  EXPECT_LT((rotated - y).norm().item<double>(), 3e-6 * y.norm().item<double>());
}

TEST(Rotation, SpreadsAnOutlier) {
  const Rotation rotation(7168, 10);
  at::Tensor x = at::zeros({7168});
  x[1234] = 100.0F;
  EXPECT_LT(rotation.apply(x).abs().max().item<double>(), 100 * std::sqrt(2.0 / 7168) * 1.001);
}

TEST(Rotation, SignsFollowTheSeed) {
  const at::Tensor x = at::ones({32});
  EXPECT_TRUE(at::equal(Rotation(32, 1).apply(x), Rotation(32, 1).apply(x)));
  EXPECT_FALSE(at::equal(Rotation(32, 1).apply(x), Rotation(32, 2).apply(x)));
}

}  // namespace
}  // namespace blockptq
