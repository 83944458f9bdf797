#include "base/log.h"

#include <gtest/gtest.h>

#include <vector>

namespace blockptq {
namespace {

TEST(LogTest, MessagesReachTheSink) {
  EXPECT_NO_THROW(log(LogLevel::info, "nobody listens"));
  std::vector<std::pair<LogLevel, std::string>> messages;
  set_log_sink(
      [&](LogLevel level, const std::string& text) { messages.emplace_back(level, text); });
  log(LogLevel::warning, "{} tensors", 3);
  set_log_sink(nullptr);
  log(LogLevel::info, "nobody listens");
  ASSERT_EQ(messages.size(), 1);
  EXPECT_EQ(messages[0].first, LogLevel::warning);
  EXPECT_EQ(messages[0].second, "3 tensors");
}

}  // namespace
}  // namespace blockptq
