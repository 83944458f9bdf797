// What a test sees of an Error.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace blockptq::testing_support {

/// The message of the Error that `action` throws, one line; a failure of the test when it throws
/// none.
template <typename Action>
std::string refusal(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return "";
}

}  // namespace blockptq::testing_support
