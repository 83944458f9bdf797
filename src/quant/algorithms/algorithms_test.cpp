#include "quant/algorithms/algorithms.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/algorithms/gptq.h"
#include "quant/algorithms/nearest.h"
#include "quant/algorithms/test_support.h"

namespace blockptq {
namespace {

Algorithm make(std::string_view name, const std::string& options) {
  const Json json = parse_json(options, "recipe.json");
  return make_algorithm(name, JsonView(json, "recipe.json", name.data()));
}

std::string error_of(std::string_view name, const std::string& options) {
  try {
    make(name, options);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(Algorithms, AreFoundByName) {
  const InputStatistics input = statistics_of(correlated_inputs(200, 32, 1));
  const at::Tensor w = at::randn({12, 32});
  EXPECT_TRUE(
      at::equal(make("nearest", "{}")({w}, 4, {}).front().codes_OI, nearest(w, 4).codes_OI));
  for (const char* name : {"nearest", "scale_search", "gptq"}) {
    const std::vector<QTensor> both = make(name, "{}")({w, w * 2}, 4, {input});
    ASSERT_EQ(both.size(), 2) << name;
    EXPECT_TRUE(at::equal(both[0].codes_OI, both[1].codes_OI)) << name;
    EXPECT_LE(loss(w, both[0], input.hessian_II), loss(w, nearest(w, 4), input.hessian_II)) << name;
  }
}

TEST(Algorithms, OptionsReachTheAlgorithm) {
  const InputStatistics input = statistics_of(correlated_inputs(200, 32, 2));
  const at::Tensor w = at::randn({12, 32});
  GptqOptions options;
  options.factor = {.damping = 0.5, .token_damping = 0, .act_order = false};
  options.scales = 3;
  options.scale_range = 0.1;
  options.sweeps = 0;
  const QTensor ours = make("gptq", R"({"damping": 0.5, "token_damping": 0, "act_order": false,
      "scales": 3, "scale_range": 0.1, "sweeps": 0})")({w}, 4, {input})
                           .front();
  const QTensor expected = gptq({w}, 4, {input}, options).front();
  EXPECT_TRUE(at::equal(ours.codes_OI, expected.codes_OI));
  EXPECT_TRUE(at::equal(ours.scales_O, expected.scales_O));
}

TEST(Algorithms, GroupsOfFeaturesAreAHessianOfBlocks) {
  const at::Tensor w = at::randn({12, 40});
  const InputStatistics left = statistics_of(correlated_inputs(200, 16, 3));
  const InputStatistics right = statistics_of(correlated_inputs(200, 24, 4));
  InputStatistics all{at::block_diag({left.hessian_II, right.hessian_II}), {}, 200};
  GroupedStatistics groups{left, right};
  for (const bool cross : {false, true}) {
    if (cross) {
      groups[0].cross_II = 0.1 * left.hessian_II;
      groups[1].cross_II = -0.2 * right.hessian_II;
      all.cross_II = at::block_diag({groups[0].cross_II, groups[1].cross_II});
    }
    // Damping follows the mean of a group's moments, order goes through all features of one.
    for (const char* options : {R"({"damping": 0, "token_damping": 0})",
                                R"({"damping": 0, "token_damping": 0, "act_order": false})"}) {
      const QTensor grouped = make("gptq", options)({w}, 4, groups).front();
      const QTensor whole = make("gptq", options)({w}, 4, {all}).front();
      EXPECT_TRUE(at::equal(grouped.codes_OI, whole.codes_OI)) << options;
      EXPECT_TRUE(at::allclose(grouped.scales_O, whole.scales_O)) << options;
    }
    const QTensor grouped = make("scale_search", "{}")({w}, 4, groups).front();
    EXPECT_TRUE(at::equal(grouped.codes_OI, make("scale_search", "{}")({w}, 4, {all})[0].codes_OI));
  }
}

TEST(Algorithms, WhatIsUnknownIsNamed) {
  EXPECT_THAT(error_of("gptk", "{}"),
              testing::AllOf(testing::HasSubstr("'gptk'"),
                             testing::HasSubstr("nearest, scale_search, gptq")));
  EXPECT_THAT(error_of("scale_search", R"({"step": 3})"),
              testing::AllOf(testing::HasSubstr("unknown option 'step'"),
                             testing::HasSubstr("steps, smallest, exact")));
  EXPECT_THAT(error_of("nearest", R"({"steps": 3})"), testing::HasSubstr("expected none"));
  EXPECT_THAT(error_of("gptq", R"({"damping": -1})"), testing::HasSubstr("'damping'"));
  EXPECT_THAT(error_of("gptq", R"({"sweeps": "two"})"), testing::HasSubstr("sweeps"));
  EXPECT_NE(error_of("gptq", "[]"), "");
}

}  // namespace
}  // namespace blockptq
