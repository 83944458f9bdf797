// Differences between the versions of Unicode that Hugging Face `tokenizers` and our libraries
// know, so that both give the same ids for characters that are newer than one of them.
//
// `tokenizers` 0.23 splits with Oniguruma (Unicode 16) and normalizes with an older crate (Unicode
// 9); PCRE2 10.42 knows Unicode 14 and utf8proc 2.8 Unicode 15. A newer library only makes rows
// redundant.
#pragma once

#include <span>

namespace blockptq {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

/// Code points of a general category ("Lu"; "M" for all marks) of which PCRE2 knows nothing yet.
struct CategoryRange {
  char32_t first;
  char32_t last;
  char category[3];
};
std::span<const CategoryRange> added_to_categories();

/// Marks that canonical ordering and composition must leave where they are. Sorted.
std::span<const CodePointRange> unordered_marks();

}  // namespace blockptq
