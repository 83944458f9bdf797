#include "base/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace blockptq {
namespace {

TEST(ErrorTest, CheckThrowsTheFormattedMessage) {
  EXPECT_NO_THROW(check(true, "{}", 1));
  try {
    check(false, "{}: expected {}, found {}", "file", 1, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "file: expected 1, found 2");
  }
  EXPECT_THROW(fail("x"), Error);
}

TEST(ErrorTest, AssertionsAreBugs) {
  EXPECT_NO_THROW(BPTQ_ASSERT(1 + 1 == 2));
  try {
    BPTQ_ASSERT(1 + 1 == 3);
    FAIL();
  } catch (const std::logic_error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("internal error: 1 + 1 == 3 does not hold"));
  }
}

}  // namespace
}  // namespace blockptq
