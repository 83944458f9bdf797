#include "text/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "text/test_support.h"

namespace blockptq {
namespace {

using testing::ElementsAre;

/// Tokens with ids from 0 on; `options` go to all of them.
AddedTokens make_tokens(const std::vector<std::string>& contents,
                        const Json& options = Json::object()) {
  Json entries = Json::array();
  for (const std::string& content : contents) {
    Json entry = {{"id", entries.size()}, {"content", content}, {"normalized", false}};
    entry.update(options);
    entries.push_back(entry);
  }
  return AddedTokens::parse(JsonView(entries, "t.json", "added_tokens"), {}, Normalizer());
}

/// The parts of a text: tokens as "<id>".
std::vector<std::string> parts_of(const AddedTokens& tokens, std::string_view text,
                                  bool normalized = false) {
  std::vector<std::string> parts;
  tokens.split(text, normalized, [&](const AddedTokens::Part& part) {
    parts.push_back(part.token != nullptr ? fmt::format("<{}>", part.token->id)
                                          : std::string(part.text));
  });
  return parts;
}

TEST(AddedTokens, LeftmostLongestWins) {
  const AddedTokens tokens = make_tokens({"ab", "abcd", "bcde", "b"});
  EXPECT_THAT(parts_of(tokens, "xabcdex"), ElementsAre("x", "<1>", "ex"));
  EXPECT_THAT(parts_of(tokens, "abcab"), ElementsAre("<0>", "c", "<0>"));
  EXPECT_THAT(parts_of(tokens, "bcdb"), ElementsAre("<3>", "cd", "<3>"));
  EXPECT_THAT(parts_of(tokens, ""), ElementsAre());
  EXPECT_THAT(parts_of(tokens, "abcd"), ElementsAre("<1>"));
}

TEST(AddedTokens, LookInTheTextThatTheyAreFor) {
  const AddedTokens tokens = make_tokens({"ab"}, {{"normalized", true}});
  EXPECT_THAT(parts_of(tokens, "ab"), ElementsAre("ab"));
  EXPECT_THAT(parts_of(tokens, "ab", true), ElementsAre("<0>"));
}

TEST(AddedTokens, StripTakesWhiteSpaceAlong) {
  EXPECT_THAT(parts_of(make_tokens({"ab"}, {{"lstrip", true}}), "x \u00a0\tab y ab"),
              ElementsAre("x", "<0>", " y", "<0>"));
  EXPECT_THAT(parts_of(make_tokens({"ab"}, {{"rstrip", true}}), "x ab\u3000\n y ab "),
              ElementsAre("x ", "<0>", "y ", "<0>"));
  EXPECT_THAT(parts_of(make_tokens({"ab"}, {{"lstrip", true}, {"rstrip", true}}), " ab  ab "),
              ElementsAre("<0>", "<0>"));
}

TEST(AddedTokens, SingleWordsStandAlone) {
  const AddedTokens tokens = make_tokens({"ab"}, {{"single_word", true}});
  EXPECT_THAT(parts_of(tokens, "ab,ab abc xab (ab)"),
              ElementsAre("<0>", ",", "<0>", " abc xab (", "<0>", ")"));
  EXPECT_THAT(parts_of(tokens, "ab\u0301"), ElementsAre("ab\u0301"));
  EXPECT_THAT(parts_of(tokens, "\u4e00ab"), ElementsAre("\u4e00ab"));
  EXPECT_THAT(parts_of(tokens, "ab\u00bd"), ElementsAre("<0>", "\u00bd"));
}

}  // namespace
}  // namespace blockptq
