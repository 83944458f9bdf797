// The byte-level alphabet of GPT-2: one printable character for each of the 256 bytes.
//
// Source: bytes_to_unicode in github.com/openai/gpt-2, src/encoder.py. Bytes that print keep their
// Latin-1 character; the others get U+0100, U+0101, ... in order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blockptq {

/// The character of a byte, in UTF-8.
std::string byte_level_char(uint8_t byte);

/// The bytes that a piece of a byte-level vocabulary stands for; nothing when it has a character
/// outside the alphabet (or is not UTF-8).
std::optional<std::string> byte_level_bytes(std::string_view piece);

}  // namespace blockptq
