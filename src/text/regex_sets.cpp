#include "text/regex_sets.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "text/unicode_tables.h"

namespace blockptq {
namespace {

constexpr std::array<std::string_view, 25> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "N",  "Nd", "Nl", "No", "P", "Pc",
    "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z"};

// White_Space and its complement; PCRE2's own \s also has U+180E.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

/// What PCRE2's Unicode lacks of a category, in as few ranges as possible.
std::vector<CodePointRange> ranges_added_to(std::string_view category) {
  std::vector<CodePointRange> ranges;
  for (const CategoryRange& row : added_to_categories()) {
    if (std::string_view(row.category).starts_with(category)) {
      ranges.push_back({row.first, row.last});
    }
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const CodePointRange& a, const CodePointRange& b) { return a.first < b.first; });
  std::vector<CodePointRange> joined;
  for (const CodePointRange& range : ranges) {
    if (!joined.empty() && joined.back().last + 1 == range.first) {
      joined.back().last = range.last;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

}  // namespace

std::string regex_escape(char32_t code_point) {
  return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(code_point));
}

std::optional<RegexSet> shorthand_set(char letter) {
  switch (letter) {
    case 's':
      return RegexSet{std::string(kSpace)};
    case 'S':
      return RegexSet{std::string(kNotSpace)};
    case 'd':
    case 'D':
      return RegexSet{category_items("Nd"), letter == 'D'};
    case 'w':
    case 'W':
      // Oniguruma counts the superscripts and fractions of Latin-1 among them as well.
      return RegexSet{R"(\p{Alphabetic}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})" + category_items("L") +
                          category_items("M") + category_items("Nd") + category_items("Pc"),
                      letter == 'W'};
    default:
      return std::nullopt;
  }
}

bool is_known_category(std::string_view category) {
  return std::find(kCategories.begin(), kCategories.end(), category) != kCategories.end();
}

std::string category_items(std::string_view category) {
  std::string items = fmt::format("\\p{{{}}}", category);
  for (const CodePointRange& range : ranges_added_to(category)) {
    items += regex_escape(range.first) + "-" + regex_escape(range.last);
  }
  return items;
}

}  // namespace blockptq
