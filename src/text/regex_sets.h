// The character sets of regular expressions, written for PCRE2 as Oniguruma 6.9.10 knows them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace blockptq {

/// A set: what stands between brackets, and whether the set is the complement of that.
struct RegexSet {
  std::string items;
  bool negated = false;
};

/// "\x{1f}".
std::string regex_escape(char32_t code_point);

/// The set of \s \S \d \D \w or \W; nothing for any other letter.
std::optional<RegexSet> shorthand_set(char letter);

/// True for the general categories that may stand in \p{..}. Mn, Mc and the Cs are not among them:
/// PCRE2 counts characters to them that have since left.
bool is_known_category(std::string_view category);

/// The members of \p{category}.
std::string category_items(std::string_view category);

}  // namespace blockptq
