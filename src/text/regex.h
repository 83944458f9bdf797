// Regular expressions of tokenizer.json, run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

namespace blockptq {

/// A compiled pattern. Immutable: any number of threads may match with it at once.
class Regex {
 public:
  /// Compiles `pattern` in the syntax of tokenizer.json (see regex_syntax.h). Error beginning with
  /// `where` when it is invalid or not supported.
  static Regex parse(std::string_view pattern, const std::string& where);
  /// Matches the text `text`, which may be empty.
  static Regex literal(std::string_view text);

 private:
  friend class RegexMatcher;
  Regex(const std::string& pcre2_pattern, const std::string& where);

  std::shared_ptr<const pcre2_real_code_8> code_;
  bool compiled_to_machine_code_ = false;
};

/// A part of a subject, in bytes.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
};

/// The scratch memory of matching with one regex, for one thread. The regex must outlive it.
class RegexMatcher {
 public:
  explicit RegexMatcher(const Regex& regex);

  /// The leftmost match in `subject` (valid UTF-8) that begins at byte `from` or later; false when
  /// there is none. Error when the search is given up because the pattern backtracks too much.
  bool search(std::string_view subject, size_t from, TextSpan& match);

  /// Covers `subject` with spans in order: handle(TextSpan, bool is_match). Matches follow one
  /// another as in `tokenizers`: an empty one is passed over where the last match ended.
  template <class Handle>
  void for_each_span(std::string_view subject, const Handle& handle) {
    constexpr auto kNever = static_cast<size_t>(-1);
    size_t covered = 0;
    size_t last_match_end = kNever;
    TextSpan match;
    for (size_t from = 0; from <= subject.size() && search(subject, from, match);) {
      if (match.begin == match.end && match.end == last_match_end) {
        from += code_point_size(subject, from);
        continue;
      }
      if (covered < match.begin) {
        handle(TextSpan{covered, match.begin}, false);
      }
      handle(match, true);
      from = covered = last_match_end = match.end;
    }
    if (covered < subject.size()) {
      handle(TextSpan{covered, subject.size()}, false);
    }
  }

 private:
  static size_t code_point_size(std::string_view subject, size_t position);

  const Regex* regex_;
  std::shared_ptr<pcre2_real_match_data_8> data_;
};

}  // namespace blockptq
