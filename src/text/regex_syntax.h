// Regular expressions of tokenizer.json, rewritten for PCRE2.
//
// `tokenizers` hands them to Oniguruma, whose syntax and character classes differ from PCRE2's in
// places: \s, \h, \v, \w, {n,m}+, nested sets, newer characters of \p{..}. The part of the syntax
// that means the same after rewriting is accepted; everything else is refused rather than
// approximated.
// Source: github.com/kkos/oniguruma, doc/RE and doc/SYNTAX.md (ONIG_SYNTAX_ONIGURUMA).
#pragma once

#include <string>
#include <string_view>

namespace blockptq {

/// The PCRE2 pattern (for PCRE2_UTF | PCRE2_UCP) that matches as Oniguruma matches `pattern`. Error
/// beginning with `where` and naming the byte of `pattern` when it uses anything else.
std::string to_pcre2_pattern(std::string_view pattern, std::string_view where);

/// The PCRE2 pattern that matches `text` and nothing else.
std::string to_pcre2_literal(std::string_view text);

}  // namespace blockptq
