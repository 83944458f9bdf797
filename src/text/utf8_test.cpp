#include "text/utf8.h"

#include <gtest/gtest.h>

#include "text/byte_level.h"

namespace blockptq {
namespace {

TEST(Utf8, EveryCodePointComesBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c == 0xD800) {
      c = 0xE000;
    }
    std::string text = "x";
    append_utf8(text, c);
    const Utf8Char forward = decode_utf8(text, 1);
    const Utf8Char backward = decode_utf8_before(text, text.size());
    ASSERT_TRUE(forward.valid && backward.valid);
    ASSERT_EQ(forward.value, c);
    ASSERT_EQ(backward.value, c);
    ASSERT_EQ(forward.size, text.size() - 1);
  }
}

TEST(Utf8, FindsWhatIsInvalid) {
  EXPECT_EQ(find_invalid_utf8(""), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("plain text that is longer than a word \u00e9 and goes on"),
            std::string_view::npos);
  for (const char* broken :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
        "\xF4\x90\x80\x80", "\xF5", "\xFF", "\xE4\xBA", "\xF0\x9F\x91", "\xC3(", "\xE4(\xBA"}) {
    EXPECT_EQ(find_invalid_utf8(std::string("0123456789") + broken), 10U);
    EXPECT_EQ(find_invalid_utf8(std::string("\u4e00") + broken + "0123456789"), 3U);
  }
}

// The example of Unicode 15, table 3-8.
TEST(Utf8, ReplacesMaximalSubparts) {
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\x41");
}

TEST(ByteLevel, AlphabetIsThatOfGpt2) {
  EXPECT_EQ(byte_level_char(' '), "\u0120");
  EXPECT_EQ(byte_level_char('\n'), "\u010A");
  EXPECT_EQ(byte_level_char('!'), "!");
  EXPECT_EQ(byte_level_char(0xAD), "\u0143");
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<uint8_t>(byte);
    EXPECT_EQ(byte_level_bytes(byte_level_char(value)), std::string(1, static_cast<char>(value)));
  }
  EXPECT_EQ(byte_level_bytes("a b"), std::nullopt);
  EXPECT_EQ(byte_level_bytes("\uFF5C"), std::nullopt);
}

}  // namespace
}  // namespace blockptq
