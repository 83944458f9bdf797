// What the tests of this folder share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"

/// `statement` throws an Error whose message is one line and matches.
#define EXPECT_ERROR(statement, matcher)                 \
  EXPECT_THAT([&] { (void)(statement); },                \
              testing::ThrowsMessage<::blockptq::Error>( \
                  testing::AllOf(testing::Not(testing::HasSubstr("\n")), matcher)))

namespace blockptq {

inline std::filesystem::path text_fixture(const std::string& name) {
  return std::filesystem::path(BLOCKPTQ_SOURCE_DIR "/tests/fixtures/text") / name;
}

inline std::filesystem::path deepseek_folder() {
  return BLOCKPTQ_SOURCE_DIR "/models/tiny-v32-fp8";
}

}  // namespace blockptq
