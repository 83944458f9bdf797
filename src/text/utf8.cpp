#include "text/utf8.h"

#include <algorithm>
#include <cstring>

namespace blockptq {
namespace {

/// What may follow a lead byte (Unicode 15, table 3-7); size 0: not a lead byte.
struct Lead {
  uint8_t size;
  uint8_t second_min;
  uint8_t second_max;
};

constexpr Lead lead_of(uint8_t byte) {
  if (byte < 0x80) {
    return {1, 0, 0};
  }
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {2, 0x80, 0xBF};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
            static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {0, 0, 0};
}

/// Length of the ASCII text at `position`, found eight bytes at a time; may stop short of its end.
size_t ascii_stride(std::string_view text, size_t position) {
  constexpr uint64_t kHighBits = 0x8080808080808080ULL;
  const size_t begin = position;
  uint64_t word = 0;
  while (position + sizeof(word) <= text.size()) {
    std::memcpy(&word, text.data() + position, sizeof(word));
    if ((word & kHighBits) != 0) {
      break;
    }
    position += sizeof(word);
  }
  return position - begin;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t position) {
  const auto first = static_cast<uint8_t>(text[position]);
  const Lead lead = lead_of(first);
  if (lead.size <= 1) {
    return {first, 1, lead.size == 1};
  }
  auto value = static_cast<char32_t>(first & (0xFF >> (lead.size + 1)));
  for (uint8_t i = 1; i < lead.size; ++i) {
    const uint8_t next =
        position + i < text.size() ? static_cast<uint8_t>(text[position + i]) : uint8_t{0};
    const uint8_t min = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t max = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (next < min || next > max) {
      return {0, i, false};
    }
    value = (value << 6) | (next & 0x3FU);
  }
  return {value, lead.size, true};
}

Utf8Char decode_utf8_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return decode_utf8(text, begin);
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto tail = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)));
  };
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    text.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    tail(0);
  } else if (code_point < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | (code_point >> 12)));
    tail(6);
    tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | (code_point >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t position = ascii_stride(text, 0); position < text.size();) {
    const Utf8Char next = decode_utf8(text, position);
    if (!next.valid) {
      return position;
    }
    position += next.size;
    if (next.size == 1) {
      position += ascii_stride(text, position);
    }
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string_view text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string result;
  result.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const size_t broken =
        std::min(find_invalid_utf8(text.substr(position)), text.size() - position);
    result += text.substr(position, broken);
    position += broken;
    if (position < text.size()) {
      result += kReplacement;
      position += decode_utf8(text, position).size;
    }
  }
  return result;
}

bool is_white_space(char32_t code_point) {
  switch (code_point) {
    case 0x20:
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000:
      return true;
    default:
      return (code_point >= 0x9 && code_point <= 0xD) ||
             (code_point >= 0x2000 && code_point <= 0x200A);
  }
}

}  // namespace blockptq
