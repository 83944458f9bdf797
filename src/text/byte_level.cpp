#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace blockptq {
namespace {

constexpr size_t kAlphabetEnd = 0x144;  // 256 + the 68 bytes that do not print

constexpr bool prints(size_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<int16_t, kAlphabetEnd> bytes{};  // -1: not in the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  alphabet.bytes.fill(-1);
  char32_t next = 0x100;
  for (size_t byte = 0; byte < 256; ++byte) {
    const char32_t value = prints(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.chars[byte] = value;
    alphabet.bytes[value] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::string byte_level_char(uint8_t byte) {
  std::string text;
  append_utf8(text, kAlphabet.chars[byte]);
  return text;
}

std::optional<std::string> byte_level_bytes(std::string_view piece) {
  std::string bytes;
  for (size_t position = 0; position < piece.size();) {
    const Utf8Char next = decode_utf8(piece, position);
    if (!next.valid || next.value >= kAlphabetEnd || kAlphabet.bytes[next.value] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kAlphabet.bytes[next.value]));
    position += next.size;
  }
  return bytes;
}

}  // namespace blockptq
