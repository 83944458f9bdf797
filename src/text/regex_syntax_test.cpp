#include "text/regex_syntax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/regex.h"
#include "text/test_support.h"

namespace blockptq {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string first_match(const std::string& pattern, const std::string& text) {
  const Regex regex = Regex::parse(pattern, "here");
  RegexMatcher matcher(regex);
  TextSpan match;
  return matcher.search(text, 0, match) ? text.substr(match.begin, match.end - match.begin) : "-";
}

// What the patterns mean is tested against Hugging Face in pre_tokenizer_test; here, the places
// where Oniguruma and PCRE2 part.
TEST(RegexSyntax, FollowsOniguruma) {
  EXPECT_EQ(first_match(R"(\s)", "\u180E"), "-");           // no white space since Unicode 6.3
  EXPECT_EQ(first_match(R"([^\S])", "x\u0085"), "\u0085");  // NEL is
  EXPECT_EQ(first_match(R"(\v)", "\n\v"), "\v");            // one character, not a set
  EXPECT_EQ(first_match(R"(\p{S})", "\U0001FAE8"), "\U0001FAE8");  // of Unicode 15
  EXPECT_EQ(first_match(R"(\p{L}+)", "\U000323AF"), "\U000323AF");
  EXPECT_EQ(first_match(R"(.+)", "a\rb\nc"), "a\rb");
  EXPECT_EQ(first_match(R"((?i:'S))", "'\u017F"), "'\u017F");  // the long s
  EXPECT_EQ(first_match(R"([a-])", "-"), "-");
  EXPECT_EQ(first_match(R"(a{2}b})", "aab}"), "aab}");
}

TEST(RegexSyntax, RefusesWhatItCannotRewrite) {
  for (const char* pattern :
       {R"(\h)",       R"(\b)",       R"(\R)",     R"(\1)",         R"(\p{Mn})",
        R"(\p{C})",    R"(\p{Han})",  R"(\p{^L})", R"(\p{L)",       R"(\pL)",
        "[a[b]]",      "[[:alpha:]]", "[a&&b]",    "[]a]",          "[a-z-9]",
        "[z-a]",       R"([\P{L}])",  R"([\d-x])", "[ab",           "^a",
        "a$",          "(?<n>a)",     "(?i)a",     "(?#c)",         "(*ACCEPT)",
        "a{,3}",       "a{1,2}+",     "a{2}?",     "a**",           "*a",
        "{",           "(?=a)*",      "(?i:ss)",   "(?i:\u00e9)",   R"((?i:\p{L}))",
        R"((?i:a\s))", R"(\xE9)",     R"(\u12)",   R"(\x{110000})", R"(\x{D800})",
        R"(\x{})",     "\\",          "a|+",       "a{99999}",      R"(\Qa\E)"}) {
    EXPECT_ERROR(to_pcre2_pattern(pattern, "here"),
                 AllOf(StartsWith("here: "), HasSubstr("is not supported")))
        << pattern;
  }
}

TEST(RegexSyntax, RefusesInvalidPatterns) {
  EXPECT_ERROR(Regex::parse("(a", "here"), HasSubstr("here: regex lacks a ')'"));
  EXPECT_ERROR(Regex::parse("a)", "here"), HasSubstr("here: regex has a ')' too many, at byte 1"));
  EXPECT_ERROR(Regex::parse("a{3,2}", "here"), HasSubstr("here: invalid regex"));
  EXPECT_ERROR(Regex::parse("(?<=a+)b", "here"), HasSubstr("here: invalid regex"));
}

}  // namespace
}  // namespace blockptq
