#include "calibrate/smoothing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>

#include "calibrate/attention_unit.h"
#include "checkpoint/checkpoint.h"
#include "models/families.h"

namespace blockptq {
namespace {

/// Attention of block 0 of a small checkpoint.
class Smoothing : public testing::TestWithParam<const char*> {
 protected:
  Checkpoint checkpoint_ =
      Checkpoint::open(std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / GetParam());
  std::unique_ptr<Model> model_ = open_model(checkpoint_);
  PieceLoader loader_{checkpoint_, at::kFloat, at::kCPU};
  Piece piece_ = loader_.load(block_pieces(model_->tensors(), 0, 1).front());

  at::Tensor output(at::ScalarType type, const at::Tensor& states_LD) const {
    Piece piece = piece_;
    for (const Weight& weight : piece_.weights()) {
      piece.replace({weight.name, weight.role, weight.value.to(type)});
    }
    return NormedAttention(*model_, piece, 0, {}).forward(FloatExec(), states_LD.to(type));
  }
};

TEST_P(Smoothing, FoldedPowersOfTwoChangeNoBitOfTheFloatModel) {
  at::manual_seed(6);
  const at::Tensor states_LD = at::randn({24, model_->spec().hidden_size});
  std::map<at::ScalarType, at::Tensor> expected;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    expected[type] = output(type, states_LD);
  }
  std::map<std::string, at::Tensor> before;
  for (const Weight& tensor : piece_.tensors()) {
    before[tensor.name] = tensor.value.clone();
  }
  const std::vector<ScalePoint> points = model_->attention_scale_points(0);
  std::vector<at::Tensor> factors;
  for (const ScalePoint& point : points) {
    const int64_t features =
        point.rows_F.defined() ? point.rows_F.size(0) : piece_.tensor(point.producer).size(0);
    factors.push_back(at::randint(-3, 4, {features}).to(at::kFloat).exp2_());
    fold(piece_, point, factors.back());
    EXPECT_FALSE(at::equal(piece_.tensor(point.producer), before.at(point.producer)));
  }
  for (const auto& [type, y] : expected) {
    EXPECT_TRUE(at::equal(output(type, states_LD), y)) << type;
  }
  for (size_t i = 0; i < points.size(); ++i) {
    fold(piece_, points[i], 1 / factors[i]);
  }
  for (const auto& [name, value] : before) {
    EXPECT_TRUE(at::equal(piece_.tensor(name), value)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Smoothing,
                         testing::Values("models/tiny-v32-fp8",
                                         "tests/fixtures/families/qwen3_moe"),
                         [](const auto& family) {
                           return family.index == 0 ? "deepseek" : "qwen3_moe";
                         });

TEST(ChooseFactors, AreKeptWhereTheyAreWorthIt) {
  const at::Tensor balanced = at::tensor({0.3F, 3.5F});
  const auto choose = [&](Factors kind, double found, double& least) {
    return choose_factors(
        kind, balanced, [&](const at::Tensor&) { return found; }, least);
  };
  double least = 1;
  EXPECT_FALSE(choose(Factors::powers_of_two, 0.99, least).defined());
  EXPECT_EQ(least, 1);
  EXPECT_TRUE(at::equal(choose(Factors::powers_of_two, 0.9, least), at::tensor({0.25F, 4.0F})));
  EXPECT_EQ(least, 0.9);
  EXPECT_TRUE(at::equal(choose(Factors::any, 0.95, least), balanced));
  EXPECT_FALSE(choose(Factors::any, 1.5, least).defined());
}

TEST(RowSample, IsSpreadOverAllRows) {
  RowSample sample(10 * balanced_tokens(8));
  for (int64_t part = 0; part < 10; ++part) {
    sample.add(at::full({balanced_tokens(8), 8}, static_cast<double>(part)));
  }
  const at::Tensor rows = sample.rows();
  EXPECT_NEAR(static_cast<double>(rows.size(0)), static_cast<double>(balanced_tokens(8)), 10);
  EXPECT_EQ(rows[0][0].item<float>(), 0);
  EXPECT_EQ(rows[-1][0].item<float>(), 9);
}

}  // namespace
}  // namespace blockptq
