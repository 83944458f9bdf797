#include "run/journal.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"

namespace blockptq {
namespace {

class JournalTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(path_); }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::filesystem::path path_ =
      std::filesystem::path(testing::TempDir()) / "journal_test.jsonl";
};

TEST_F(JournalTest, KeepsEntriesAcrossProcesses) {
  {
    Journal journal(path_);
    journal.append({{"block", 0}, {"unit", "attention"}, {"tokens", 7}});
    journal.append({{"block", 0}, {"unit", "expert 1"}});
  }
  const Journal again(path_);
  ASSERT_EQ(again.entries().size(), 2);
  ASSERT_NE(again.find(0, "attention"), nullptr);
  EXPECT_EQ(again.find(0, "attention")->at("tokens"), 7);
  EXPECT_EQ(again.find(1, "attention"), nullptr);
}

TEST_F(JournalTest, DropsALastLineThatWasCutOff) {
  Journal(path_).append({{"block", 3}, {"unit", "mlp"}});
  std::ofstream(path_, std::ios::app) << R"({"block": 4, "un)";
  Journal again(path_);
  EXPECT_EQ(again.entries().size(), 1);
  again.append({{"block", 4}, {"unit", "mlp"}});
  EXPECT_EQ(Journal(path_).entries().size(), 2);
}

}  // namespace
}  // namespace blockptq
