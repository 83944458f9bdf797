// UTF-8: decoding, validation and repair of byte strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace blockptq {

/// One code point of a byte string, or the bytes that stand where none could be decoded.
struct Utf8Char {
  char32_t value = 0;
  uint8_t size = 0;  // bytes; of a broken sequence the longest part that could begin a code point
  bool valid = false;
};

/// Decodes the code point that starts at `position` < text.size().
Utf8Char decode_utf8(std::string_view text, size_t position);

/// Decodes the code point that ends at `end` > 0 of a valid string.
Utf8Char decode_utf8_before(std::string_view text, size_t end);

void append_utf8(std::string& text, char32_t code_point);

/// Offset of the first byte that is not valid UTF-8 (overlong forms and surrogates are not), or
/// npos.
size_t find_invalid_utf8(std::string_view text);

/// `text` with U+FFFD in place of every broken sequence (the maximal subparts of Unicode 3.9).
std::string replace_invalid_utf8(std::string_view text);

/// The Unicode property White_Space.
bool is_white_space(char32_t code_point);

}  // namespace blockptq
