#include "report/findings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "report/test_support.h"

namespace blockptq {
namespace {

using test::block_line;
using test::finished_run;
using test::good_lines;
using test::held_out_line;
using test::unit_line;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::vector<std::string> names(const RunData& run) {
  const std::vector<Finding> findings = find_suspicious(run);
  std::vector<std::string> result;
  result.reserve(findings.size());
  for (const Finding& finding : findings) {
    result.push_back(finding.check);
  }
  return result;
}

/// What a good run with one more line is found to be.
std::vector<std::string> names_with(const Json& line) {
  std::vector<Json> lines = good_lines();
  lines.push_back(line);
  return names(finished_run(lines));
}

TEST(Findings, NothingAboutAGoodRun) {
  const RunData run = finished_run(good_lines());
  EXPECT_THAT(names(run), IsEmpty());
  const Verdict judged = verdict(run, {});
  EXPECT_EQ(judged.level, "good");
  EXPECT_EQ(judged.text,
            "Nothing suspicious was found. On held-out text the perplexity goes from 8 to 10, the "
            "KL divergence is 0.01 nats per token, and 75.0 % of the most likely tokens stay the "
            "same.");
}

TEST(Findings, EveryCheckFindsItsCase) {
  Json nan = unit_line(1, "attention", 64, 0.02, 0.01);
  nan["loss_after"] = nullptr;
  EXPECT_THAT(names_with(nan), ElementsAre("not_a_number"));
  EXPECT_THAT(names_with({{"block", 1}, {"unit", "block"}, {"relative_error", nullptr}}),
              ElementsAre("not_a_number"));
  EXPECT_THAT(names_with(held_out_line(0.06)), ElementsAre("high_kl"));
  EXPECT_THAT(names_with(held_out_line(0.51)), ElementsAre("model_lost"));
  EXPECT_THAT(names_with(block_line(1, 0.0081)), ElementsAre("block_jump"));
  EXPECT_THAT(names_with(block_line(0, 0.26)), ElementsAre("high_error"));
  EXPECT_THAT(names_with(unit_line(1, "expert 2", 0, 0, 0)), ElementsAre("no_tokens"));
  EXPECT_THAT(names_with(unit_line(1, "expert 1", 9, 0.1, 0.11)), ElementsAre("worse"));
  Json fallback = unit_line(1, "expert 1", 9, 0.1, 0.1);
  fallback["fallback"] = "plain rounding was better";
  EXPECT_THAT(names_with(fallback), ElementsAre("many_fallbacks", "fallback"));
}

TEST(Findings, SmallOrEqualErrorsAndGapsAreNoJump) {
  EXPECT_THAT(names_with(block_line(1, 0.008)), IsEmpty());  // 4 times
  EXPECT_THAT(names_with(block_line(3, 0.2)), IsEmpty());    // block 2 is not there
  Json mtp = block_line(2, 0.2);
  mtp["mtp"] = true;
  EXPECT_THAT(names_with(mtp), IsEmpty());
  EXPECT_THAT(names(finished_run({block_line(0, 1e-6), block_line(1, 9e-4), held_out_line(0)})),
              IsEmpty());
}

TEST(Findings, ManyExpertsWithoutTokensAreOneSentence) {
  std::vector<Json> lines = good_lines();
  for (int expert = 2; expert < 22; ++expert) {
    lines.push_back(unit_line(1, "expert " + std::to_string(expert), 0, 0, 0));
  }
  const auto findings = find_suspicious(finished_run(lines));
  ASSERT_EQ(findings.size(), 1);
  EXPECT_EQ(
      findings[0].text,
      "No calibration token reached: block 1 expert 2, block 1 expert 3, block 1 expert 4, block 1 "
      "expert 5, block 1 expert 6, block 1 expert 7, block 1 expert 8, block 1 expert 9 and "
      "12 more.");
}

TEST(Findings, TheWorstDecides) {
  std::vector<Json> lines = good_lines();
  lines.push_back(held_out_line(0.9));
  lines.push_back(unit_line(1, "expert 2", 0, 0, 0));
  const RunData run = parse_run({}, lines, Json());
  const auto findings = find_suspicious(run);
  EXPECT_THAT(names(run), ElementsAre("model_lost", "no_tokens", "unfinished"));
  EXPECT_EQ(verdict(run, findings).level, "error");
  EXPECT_THAT(verdict(run, findings).text,
              StartsWith("Unfinished, 2 blocks so far. Do not deploy this: 1 error found."));
}

TEST(Findings, AnEmptyRunIsNotJudged) {
  const RunData run = parse_run({}, {}, Json());
  EXPECT_THAT(names(run), ElementsAre("unfinished", "no_held_out"));
  EXPECT_EQ(verdict(run, find_suspicious(run)).level, "empty");
}

TEST(Findings, RulesStateTheirThresholds) {
  for (const Check& check : checks()) {
    EXPECT_THAT(check.rule, testing::EndsWith(".")) << check.name;
  }
  EXPECT_THAT(checks()[2].rule, HasSubstr("0.05 nats"));
}

}  // namespace
}  // namespace blockptq
