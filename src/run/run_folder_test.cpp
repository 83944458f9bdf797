#include "run/run_folder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "base/error.h"

namespace blockptq {
namespace {

class RunFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string refusal(const Json& description) {
    try {
      const RunFolder run(folder_, description, false);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  }

  std::filesystem::path folder_;
};

TEST_F(RunFolderTest, KeepsTheNewestStates) {
  const at::Tensor states = at::randn({2, 3, 4}).to(at::kBFloat16);
  {
    const RunFolder run(folder_, {{"model", "a"}}, false);
    EXPECT_EQ(run.newest_states(9), std::nullopt);
    run.save_states(1, {{"states", at::zeros({1})}});
    run.save_states(3, {{"states", states}});
  }
  const RunFolder again(folder_, {{"model", "a"}}, false);
  EXPECT_EQ(again.newest_states(9), 3);
  EXPECT_EQ(again.newest_states(2), std::nullopt);
  EXPECT_EQ(again.load_states(1).has_value(), false);
  EXPECT_TRUE(at::equal(again.load_states(3)->at("states"), states));
}

TEST_F(RunFolderTest, RefusesAnotherRunAndNamesTheKey) {
  { const RunFolder run(folder_, {{"model", "a"}, {"text", "t"}}, false); }
  EXPECT_THAT(refusal({{"model", "b"}, {"text", "t"}}), testing::HasSubstr("model"));
  EXPECT_THAT(refusal({{"model", "a"}, {"text", "u"}}), testing::HasSubstr("--restart"));
  EXPECT_EQ(refusal({{"model", "a"}, {"text", "t"}}), "");
}

TEST_F(RunFolderTest, NamesThePlaceWhereALongValueDiffers) {
  const Json rule{{"role", "expert.*"}, {"weight_bits", 4}};
  const Json other{{"role", "expert.*"}, {"weight_bits", 8}};
  { const RunFolder run(folder_, {{"recipe", {{"linears", {rule}}}}}, false); }
  const std::string text = refusal({{"recipe", {{"linears", {other}}}}});
  EXPECT_THAT(text,
              testing::HasSubstr("recipe/linears/0/weight_bits: the folder holds a run with 4"));
  EXPECT_THAT(text, testing::HasSubstr("this one has 8"));
  EXPECT_THAT(refusal({{"recipe", {{"linears", {rule, other}}}}}),
              testing::HasSubstr("the folder holds a run with none"));
}

TEST_F(RunFolderTest, AResultIsGoneWhileTheRunGoesOn) {
  const auto result = folder_ / kResultName;
  { const RunFolder run(folder_, {{"model", "a"}}, false); }
  std::ofstream(result) << "{}";
  EXPECT_NE(refusal({{"model", "b"}}), "");
  EXPECT_TRUE(std::filesystem::exists(result));
  const RunFolder run(folder_, {{"model", "a"}}, false);
  EXPECT_FALSE(std::filesystem::exists(result));
}

TEST_F(RunFolderTest, RestartThrowsStatesAway) {
  {
    const RunFolder run(folder_, {{"model", "a"}}, false);
    run.save_states(2, {{"states", at::zeros({1})}});
  }
  const RunFolder run(folder_, {{"model", "b"}}, true);
  EXPECT_EQ(run.newest_states(9), std::nullopt);
}

TEST_F(RunFolderTest, OneProcessAtATime) {
  const RunFolder run(folder_, {{"model", "a"}}, false);
  EXPECT_THAT(refusal({{"model", "a"}}), testing::HasSubstr("another process"));
}

TEST_F(RunFolderTest, RemovesWhatAKilledProcessLeft) {
  const auto unfinished = folder_ / "states_002.safetensors.tmp-4711";
  {
    const RunFolder run(folder_, {{"model", "a"}}, false);
    run.save_states(1, {{"states", at::zeros({1})}});
    std::ofstream(unfinished) << "half";
  }
  const RunFolder again(folder_, {{"model", "a"}}, false);
  EXPECT_FALSE(std::filesystem::exists(unfinished));
  EXPECT_EQ(again.newest_states(9), 1);
}

TEST_F(RunFolderTest, TruncatedStatesAreRefused) {
  const RunFolder run(folder_, {{"model", "a"}}, false);
  run.save_states(1, {{"states", at::randn({64})}});
  std::filesystem::resize_file(folder_ / "states_001.safetensors", 100);
  EXPECT_THROW(run.load_states(1), Error);
}

}  // namespace
}  // namespace blockptq
