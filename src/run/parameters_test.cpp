#include "run/parameters.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

class ParametersTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    write_file_atomically(folder_ / "run.json", R"({"model": "abc"})");
    at::manual_seed(1);
    w_OI_ = at::randn({6, 16});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Parameters written(const NamedTensors& tensors) const {
    write_tensors(parameters_path(folder_, 2), tensors);
    return Parameters({folder_}, "abc");
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / "parameters_test";
  at::Tensor w_OI_;
};

TEST_F(ParametersTest, KeptCodesComeBack) {
  const at::Tensor scales = weight_scales(w_OI_, 4) * 0.8;
  QTensor chosen = quantize_weight(w_OI_, 4, scales);
  chosen.codes_OI[0][0] = chosen.codes_OI[0][0].item<int>() == 0 ? 1 : 0;
  NamedTensors kept;
  keep_learned("a.weight", w_OI_, chosen, /*always_codes=*/false, kept);
  EXPECT_EQ(kept.size(), 2);
  const QTensor back = written(kept).quantize(2, "a.weight", w_OI_, 4);
  EXPECT_TRUE(at::equal(back.codes_OI, chosen.codes_OI));
  EXPECT_TRUE(at::equal(back.scales_O, chosen.scales_O));
}

TEST_F(ParametersTest, CodesThatFollowFromScalesAreNotKept) {
  const QTensor chosen = quantize_weight(w_OI_, 8, weight_scales(w_OI_, 8) * 0.9);
  NamedTensors kept;
  keep_learned("a.weight", w_OI_, chosen, /*always_codes=*/false, kept);
  EXPECT_EQ(kept.size(), 1);
  EXPECT_TRUE(at::equal(written(kept).quantize(2, "a.weight", w_OI_, 8).codes_OI, chosen.codes_OI));
}

TEST_F(ParametersTest, WhatIsFoldedInTakesTwoVectors) {
  const FoldedFactors folded{at::rand({6}) + 0.5, at::rand({16}) + 0.5};
  const at::Tensor expected = w_OI_ / folded.rows_O.unsqueeze(1) * folded.columns_I;
  const QTensor chosen = quantize_weight(expected, 4, weight_scales(expected, 4) * 0.9);
  NamedTensors kept;
  keep_learned("a.weight", TargetWeight(w_OI_, folded), chosen, /*always_codes=*/false, kept);
  keep_factors("a.weight", folded, kept);
  EXPECT_EQ(kept.size(), 3);
  const Parameters parameters = written(kept);
  const TargetWeight target(w_OI_, parameters.folded(2, "a.weight", {6, 16}));
  EXPECT_TRUE(at::equal(target.whole(), expected));
  EXPECT_TRUE(at::equal(parameters.quantize(2, "a.weight", target, 4).codes_OI, chosen.codes_OI));
  EXPECT_FALSE(parameters.folded(2, "b.weight", {6, 16}).defined());
  EXPECT_THROW(parameters.folded(2, "a.weight", {6, 15}), Error);
}

TEST_F(ParametersTest, UnknownWeightsAreRoundedPlainly) {
  const Parameters parameters = written({{"a.weight_scale", at::ones({6})}});
  const QTensor plain = quantize_weight(w_OI_, 4, weight_scales(w_OI_, 4));
  EXPECT_TRUE(at::equal(parameters.quantize(2, "b.weight", w_OI_, 4).codes_OI, plain.codes_OI));
  EXPECT_TRUE(at::equal(parameters.quantize(1, "a.weight", w_OI_, 4).codes_OI, plain.codes_OI));
}

TEST_F(ParametersTest, ClipLogitsClampFirst) {
  const at::Tensor high = at::full({6}, 0.4);
  const at::Tensor low = at::full({6}, -0.7);
  const Parameters parameters = written({{"a.weight_clip_max", high}, {"a.weight_clip_min", low}});
  const at::Tensor top = (w_OI_.amax(1) * at::sigmoid(high)).unsqueeze(1);
  const at::Tensor bottom = (w_OI_.amin(1) * at::sigmoid(low)).unsqueeze(1);
  const at::Tensor clamped = at::minimum(at::maximum(w_OI_, bottom), top);
  const at::Tensor scale = at::maximum(top, -bottom) / 7;
  const at::Tensor expected = (clamped / scale).round().to(at::kChar);
  EXPECT_TRUE(at::equal(parameters.quantize(2, "a.weight", w_OI_, 4).codes_OI, expected));
}

TEST_F(ParametersTest, RefusesWhatDoesNotFit) {
  EXPECT_THROW(written({{"a.weight_scale", at::ones({5})}}).quantize(2, "a.weight", w_OI_, 4),
               Error);
  const Parameters wide =
      written({{"a.weight_scale", at::ones({6})},
               {"a.weight_codes", at::full({6, 16}, 9, at::TensorOptions(at::kChar))}});
  EXPECT_THROW(wide.quantize(2, "a.weight", w_OI_, 4), Error);
  EXPECT_THROW(Parameters({folder_}, "another model"), Error);
  std::filesystem::remove(parameters_path(folder_, 2));
  EXPECT_THROW(Parameters({folder_}, "abc"), Error);
}

}  // namespace
}  // namespace blockptq
