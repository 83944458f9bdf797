// Runs unit tests: all, or those of the sources whose path in src/ begins with an argument
// (core_tests text/ base/json_test.cpp).
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <span>
#include <string>
#include <string_view>

namespace {

const std::string kSources = BLOCKPTQ_SOURCE_DIR "/src/";

/// The cases of the sources that begin with `path`, as GoogleTest's filter writes them.
std::string cases_of(std::string_view path) {
  std::string filter;
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  for (int s = 0; s < tests.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *tests.GetTestSuite(s);
    for (int c = 0; c < suite.total_test_count(); ++c) {
      const testing::TestInfo& info = *suite.GetTestInfo(c);
      if (std::string_view(info.file()).starts_with(kSources + std::string(path))) {
        filter += std::string(suite.name()) + "." + info.name() + ":";
      }
    }
  }
  return filter;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::string filter;
  for (const char* path : std::span(argv, argc).subspan(1)) {
    const std::string cases = cases_of(path);
    if (cases.empty()) {
      std::cerr << path << ": no test in sources of this name\n";
      return 2;
    }
    filter += cases;
  }
  if (!filter.empty()) {
    GTEST_FLAG_SET(filter, filter);
  }
  return RUN_ALL_TESTS();
}
