#include "text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "text/byte_level.h"
#include "text/test_support.h"

namespace blockptq {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PreTokenizer parse(const std::string& text) {
  const Json json = parse_json(text, "t.json");
  return PreTokenizer::parse(JsonView(json, "t.json", "pre_tokenizer"));
}

std::vector<std::string> pieces_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<std::string> pieces;
  pre_tokenizer.split(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

constexpr const char* kByteLevel =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true})";

/// A Split with the regex (as it stands in JSON), then ByteLevel.
std::string split_json(const std::string& regex) {
  return R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": ")" +
         regex +
         R"("}, "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", )"
         R"("add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})";
}

TEST(PreTokenizer, SplitsAsHuggingFaceDoes) {
  const Json groups = parse_json(read_file(text_fixture("pre_tokenizer_cases.json")), "cases");
  for (const Json& group : groups) {
    const PreTokenizer pre_tokenizer = parse(group["pre_tokenizer"].dump());
    for (const Json& test : group["cases"]) {
      std::vector<std::string> expected;
      for (const Json& piece : test[1]) {
        expected.push_back(byte_level_bytes(piece.get<std::string>()).value());
      }
      const auto text = test[0].get<std::string>();
      EXPECT_EQ(pieces_of(pre_tokenizer, text), expected)
          << group["pre_tokenizer"].dump() << " on " << test[0].dump(-1, ' ', true);
    }
  }
}

TEST(PreTokenizer, EmptyTextHasNoPieces) {
  EXPECT_THAT(pieces_of(parse(kByteLevel), ""), ElementsAre());
}

// The first group repeats through the regex engine's stack, which machine code has 32 KiB of.
TEST(PreTokenizer, LongMatchesAreNotCutShort) {
  std::string text;
  for (int i = 0; i < 300000; ++i) {
    text += "ab";
  }
  EXPECT_THAT(pieces_of(parse(split_json("(?:ab|ba)+")), text), ElementsAre(text));
  const std::string spaces(4000000, ' ');
  EXPECT_THAT(pieces_of(parse(kByteLevel), spaces), ElementsAre(spaces));
}

TEST(PreTokenizer, GivesUpOnPatternsThatBacktrackWithoutEnd) {
  EXPECT_ERROR(pieces_of(parse(split_json("(?:a|aa)+[bc]")), std::string(60, 'a')),
               HasSubstr("regex gave up on a text of 60 bytes"));
}

TEST(PreTokenizer, RefusesOtherComponents) {
  EXPECT_ERROR(parse("null"), HasSubstr("t.json: pre_tokenizer: unsupported pre-tokenizer"));
  EXPECT_ERROR(parse(R"({"type": "Metaspace"})"), HasSubstr("found 'Metaspace'"));
  EXPECT_ERROR(parse(R"({"type": "Digits", "individual_digits": true})"),
               HasSubstr("expected ByteLevel as the last"));
  EXPECT_ERROR(parse(R"({"type": "Sequence", "pretokenizers": [)" + std::string(kByteLevel) + "," +
                     kByteLevel + "]}"),
               HasSubstr("pretokenizers[1]: unsupported pre-tokenizer, expected nothing after"));
  EXPECT_ERROR(parse(R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Gone",)"
                     R"("invert": false})"),
               HasSubstr("behavior: unknown behavior 'Gone'"));
  EXPECT_ERROR(parse(R"({"type": "Split", "pattern": "a", "behavior": "Isolated",)"
                     R"("invert": false})"),
               HasSubstr("pattern: expected an object"));
}

}  // namespace
}  // namespace blockptq
