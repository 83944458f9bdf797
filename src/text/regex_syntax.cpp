#include "text/regex_syntax.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/error.h"
#include "text/regex_sets.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

// Under (?i) Oniguruma lets one character stand for these pairs, and PCRE2 does not.
constexpr std::array<std::string_view, 5> kFoldedPairs = {"ff", "fi", "fl", "ss", "st"};

bool is_ascii_letter(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_ascii_digit(char32_t c) {
  return c >= '0' && c <= '9';
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (!at_end()) {
      step();
    }
    check(groups_.empty(), "{}: regex lacks a ')'", where_);
    return std::move(output_);
  }

 private:
  struct Group {
    bool quantifiable;  // what the group is, once closed
    bool caseless;      // what holds after the group
  };

  bool at_end() const { return position_ >= pattern_.size(); }
  std::string_view rest() const { return pattern_.substr(position_); }

  bool skip(std::string_view text) {
    const bool found = rest().starts_with(text);
    position_ += found ? text.size() : 0;
    return found;
  }

  [[noreturn]] void unsupported(std::string_view what) const {
    fail("{}: regex syntax at byte {} is not supported: {}", where_, position_, what);
  }

  char32_t next_code_point() {
    if (at_end()) {
      unsupported("the pattern ends too early");
    }
    const Utf8Char next = decode_utf8(pattern_, position_);
    if (!next.valid) {
      unsupported("invalid UTF-8");
    }
    position_ += next.size;
    return next.value;
  }

  void step() {
    const std::string_view kQuantifiers = "*+?{";
    const char c = rest().front();
    if (c == '(') {
      open_group();
    } else if (c == ')') {
      close_group();
    } else if (c == '[') {
      emit_atom(char_class());
    } else if (c == '\\') {
      outer_escape();
    } else if (kQuantifiers.find(c) != std::string_view::npos) {
      quantifier();
    } else if (c == '|' || c == '.') {
      ++position_;
      output_ += c;
      has_atom_ = c == '.';
      last_literal_.reset();
    } else if (c == '^' || c == '$') {
      unsupported("anchors");
    } else {
      literal(next_code_point());
    }
  }

  void emit_atom(std::string_view text) {
    output_ += text;
    has_atom_ = true;
    last_literal_.reset();
  }

  void literal(char32_t code_point) {
    if (caseless_) {
      check_caseless(code_point);
    }
    const auto previous = last_literal_;
    emit_atom(regex_escape(code_point));
    last_literal_ = code_point;
    if (caseless_ && previous) {
      const std::array<char, 2> pair = {static_cast<char>(*previous | 0x20),
                                        static_cast<char>(code_point | 0x20)};
      if (std::find(kFoldedPairs.begin(), kFoldedPairs.end(),
                    std::string_view(pair.data(), pair.size())) != kFoldedPairs.end()) {
        unsupported("ff, fi, fl, ss or st under (?i)");
      }
    }
  }

  void check_caseless(char32_t code_point) const {
    if (code_point >= 0x80) {
      unsupported("other than ASCII under (?i)");
    }
  }

  void open_group() {
    constexpr std::array<std::string_view, 2> kGroups = {"(?:", "(?>"};
    constexpr std::array<std::string_view, 4> kLookarounds = {"(?=", "(?!", "(?<=", "(?<!"};
    const auto open = [&](std::string_view text, bool quantifiable) {
      output_ += text;
      groups_.push_back({quantifiable, caseless_});
    };
    has_atom_ = false;
    for (const auto group : kGroups) {
      if (skip(group)) {
        return open(group, true);
      }
    }
    for (const auto lookaround : kLookarounds) {
      if (skip(lookaround)) {
        return open(lookaround, false);
      }
    }
    if (skip("(?i:")) {
      open("(?i:", true);
      caseless_ = true;
      return;
    }
    if (rest().starts_with("(?") || rest().starts_with("(*")) {
      unsupported("this kind of group");
    }
    skip("(");
    open("(?:", true);  // nobody asks for what a group captured
  }

  void close_group() {
    check(!groups_.empty(), "{}: regex has a ')' too many, at byte {}", where_, position_);
    skip(")");
    emit_atom(")");
    has_atom_ = groups_.back().quantifiable;
    caseless_ = groups_.back().caseless;
    groups_.pop_back();
  }

  void quantifier() {
    if (rest().front() == '{') {
      return interval();
    }
    require_atom();
    output_ += rest().front();
    ++position_;
    if (skip("?")) {
      output_ += '?';
    } else if (skip("+")) {
      output_ += '+';
    }
    finish_quantifier();
  }

  /// {n}, {n,} or {n,m}; lazy with a ? after the latter two. {n}? and {n,m}+ mean other things to
  /// Oniguruma than to PCRE2.
  void interval() {
    const size_t end = rest().find('}');
    const std::string_view body =
        end == std::string_view::npos ? std::string_view() : rest().substr(1, end - 1);
    const size_t comma = body.find(',');
    const std::string_view low = body.substr(0, comma);
    const std::string_view high =
        comma == std::string_view::npos ? std::string_view() : body.substr(comma + 1);
    if (low.empty() || !is_count(low) || !is_count(high)) {
      unsupported("a '{' that begins no {n}, {n,} or {n,m}");
    }
    require_atom();
    output_ += rest().substr(0, end + 1);
    position_ += end + 1;
    if (comma != std::string_view::npos && skip("?")) {
      output_ += '?';
    }
    finish_quantifier();
  }

  static bool is_count(std::string_view text) {
    return text.size() <= 4 && std::all_of(text.begin(), text.end(), is_ascii_digit);
  }

  void require_atom() const {
    if (!has_atom_) {
      unsupported("a quantifier with nothing to repeat");
    }
  }

  void finish_quantifier() {
    has_atom_ = false;
    last_literal_.reset();
  }

  void outer_escape() {
    if (const auto set = escaped_set()) {
      return emit_atom((set->negated ? "[^" : "[") + set->items + "]");
    }
    literal(escaped_literal());
  }

  /// The set of \s \S \d \D \w \W \p{..} \P{..}; nothing when the escape is another.
  std::optional<RegexSet> escaped_set() {
    std::optional<RegexSet> set;
    if (rest().starts_with("\\p{") || rest().starts_with("\\P{")) {
      const bool negated = rest()[1] == 'P';
      position_ += 3;
      set = RegexSet{category_items(category()), negated};
    } else if (rest().size() >= 2 && (set = shorthand_set(rest()[1]))) {
      position_ += 2;
    }
    if (set && caseless_) {
      unsupported("sets under (?i)");
    }
    return set;
  }

  std::string_view category() {
    const size_t end = rest().find('}');
    const std::string_view name = rest().substr(0, end);
    if (end == std::string_view::npos || !is_known_category(name)) {
      unsupported("\\p of other than a general category (L, Lu, M, Nd, P, ...)");
    }
    position_ += end + 1;
    return name;
  }

  char32_t escaped_literal() {
    constexpr std::string_view kNames = "ntrfvae";
    constexpr std::string_view kValues = "\n\t\r\f\v\a\x1b";
    skip("\\");
    if (skip("x{")) {
      const size_t end = std::min(rest().find('}'), rest().size());
      const char32_t value = hexadecimal(end);
      skip("}");
      return value;
    }
    if (skip("u")) {
      return hexadecimal(4);
    }
    if (skip("x")) {
      const char32_t value = hexadecimal(2);
      if (value >= 0x80) {
        unsupported("\\x of a single byte of UTF-8");
      }
      return value;
    }
    const char32_t c = next_code_point();
    if (c < 0x80 && kNames.find(static_cast<char>(c)) != std::string_view::npos) {
      return static_cast<uint8_t>(kValues[kNames.find(static_cast<char>(c))]);
    }
    if (is_ascii_letter(c) || is_ascii_digit(c)) {
      unsupported(fmt::format("\\{}", static_cast<char>(c)));
    }
    return c;
  }

  /// A code point written in `digits` hexadecimal digits.
  char32_t hexadecimal(size_t digits) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    if (digits == 0 || digits > 6 || digits > rest().size()) {
      unsupported("a code point of other than 1 to 6 digits");
    }
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = pattern_[position_ + i];
      const size_t digit = kDigits.find(is_ascii_letter(c) ? static_cast<char>(c | 0x20) : c);
      if (digit == std::string_view::npos) {
        unsupported("a digit that is not hexadecimal");
      }
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      unsupported("a number that is no code point");
    }
    position_ += digits;
    return value;
  }

  std::string char_class() {
    skip("[");
    std::string output = skip("^") ? "[^" : "[";
    if (rest().starts_with("]")) {
      unsupported("an empty set");
    }
    while (!skip("]")) {
      class_item(output);
    }
    return output + "]";
  }

  void class_item(std::string& output) {
    if (rest().starts_with("[") || rest().starts_with("&&")) {
      unsupported("sets in sets");
    }
    if (rest().starts_with("-") && !rest().starts_with("-]") && !output.ends_with("[") &&
        !output.ends_with("[^")) {
      unsupported("a '-' that is neither first, last, escaped nor part of a range");
    }
    if (rest().starts_with("\\")) {
      if (const auto set = escaped_set()) {
        if (set->negated) {
          unsupported("a complement in a set");
        }
        if (rest().starts_with("-") && !rest().starts_with("-]")) {
          unsupported("a range that begins with a set");
        }
        output += set->items;
        return;
      }
    }
    const char32_t first = class_literal();
    output += regex_escape(first);
    if (rest().starts_with("-") && !rest().starts_with("-]")) {
      skip("-");
      if (rest().starts_with("[") || rest().starts_with("-") || first == U'-') {
        unsupported("this range");
      }
      const char32_t last = class_literal();
      if (last < first) {
        unsupported("a range that runs backwards");
      }
      output += "-" + regex_escape(last);
    }
  }

  char32_t class_literal() {
    const char32_t value = rest().starts_with("\\") ? escaped_literal() : next_code_point();
    if (caseless_) {
      check_caseless(value);
    }
    return value;
  }

  std::string_view pattern_;
  std::string_view where_;
  size_t position_ = 0;
  std::string output_;
  std::vector<Group> groups_;
  std::optional<char32_t> last_literal_;  // what stands before the cursor, if it is one character
  bool has_atom_ = false;                 // there is something that a quantifier may repeat
  bool caseless_ = false;
};

}  // namespace

std::string to_pcre2_pattern(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

std::string to_pcre2_literal(std::string_view text) {
  std::string pattern;
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_utf8(text, position);
    pattern += regex_escape(next.value);
    position += next.size;
  }
  return pattern;
}

}  // namespace blockptq
