#include "report/run_data.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "report/test_support.h"

namespace blockptq {
namespace {

using test::block_line;
using test::good_lines;
using test::unit_line;

TEST(RunData, OrdersUnitsAndKeepsTheLastOfEach) {
  const RunData run =
      parse_run({},
                {unit_line(1, "expert 10", 5, 1, 1), unit_line(1, "expert 9", 5, 1, 1),
                 unit_line(0, "mlp", 5, 1, 1), unit_line(1, "attention", 5, 1, 1),
                 unit_line(1, "expert 9", 6, 1, 0.5)},
                Json());
  ASSERT_EQ(run.units.size(), 4);
  EXPECT_EQ(run.units[0].unit, "mlp");
  EXPECT_EQ(run.units[1].unit, "attention");
  EXPECT_EQ(run.units[2].expert, 9);
  EXPECT_EQ(run.units[2].tokens, 6);
  EXPECT_EQ(run.units[3].expert, 10);
  EXPECT_EQ(run.units[3].kind(), "expert");
  EXPECT_FALSE(run.finished);
}

TEST(RunData, TakesTheListsOfAResultWithoutAJournal) {
  const std::vector<Json> lines = good_lines();
  Json result{{"units", {lines[0], lines[1]}},
              {"blocks", {{{"block", 0}, {"relative_error", 0.25}}}},
              {"held_out", {{"kl", 0.5}}},
              {"seconds", 3.0}};
  const RunData run = parse_run({}, {}, result);
  EXPECT_EQ(run.units.size(), 2);
  ASSERT_EQ(run.blocks.size(), 1);
  EXPECT_EQ(run.blocks[0].relative_error, 0.25);
  ASSERT_TRUE(run.held_out);
  EXPECT_EQ(run.held_out->kl, 0.5);
  EXPECT_TRUE(std::isnan(run.held_out->ppl));
  EXPECT_TRUE(run.finished);
  EXPECT_EQ(run.result, Json({{"seconds", 3.0}}));
}

TEST(RunData, OnlyNumbersOfSaneExpertsAreExperts) {
  for (const char* unit : {"expert", "expert ", "expert x", "expert 7x", "expert -1",
                           "expert 99999999999999999999", "experts 3", "<b>"}) {
    const RunData run = parse_run({}, {unit_line(0, unit, 1, 1, 1)}, Json());
    EXPECT_FALSE(run.units.at(0).expert) << unit;
  }
}

TEST(RunData, NamesTheKeyThatIsWrong) {
  Json line = unit_line(0, "mlp", 1, 1, 1);
  line["tokens"] = "many";
  try {
    parse_run({}, {line}, Json());
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "journal.jsonl: tokens: expected an integer >= 0, found \"many\"");
  }
}

TEST(RunData, ReadsAFolderAndDropsALineThatWasCutOff) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "run_data_test";
  std::filesystem::remove_all(folder);
  make_folder(folder);
  EXPECT_THROW(read_run(folder), Error);
  write_file_atomically(folder / "run.json", R"({"command": "train"})");
  EXPECT_TRUE(read_run(folder).units.empty());
  write_file_atomically(folder / "journal.jsonl",
                        block_line(0, 0.5).dump() + "\n" + R"({"block": 1, "un)");
  const RunData run = read_run(folder);
  EXPECT_EQ(run.blocks.size(), 1);
  EXPECT_EQ(run.description["command"], "train");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace blockptq
