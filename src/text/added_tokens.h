// The added_tokens of tokenizer.json: texts that are one token wherever they stand, found before
// the rest is split and merged.
//
// Source: github.com/huggingface/tokenizers, tokenizers/src/tokenizer/added_vocabulary.rs (0.23).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/regex.h"

namespace blockptq {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool normalized = false;   // is looked for in the normalized text
};

/// Finds a set of texts in another: the leftmost, of these the longest, then on from its end.
class TextMatcher {
 public:
  /// Adds a text that is not empty; false when it is there already.
  bool add(std::string_view text, size_t token);

  struct Match {
    TextSpan span;
    size_t token;
  };
  /// The first match that begins at `from` or later.
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  /// A node of the trie: children are a list of siblings.
  struct Node {
    char byte = 0;
    uint32_t first_child = 0;  // 0: none
    uint32_t sibling = 0;      // 0: none
    std::optional<size_t> token;
  };

  uint32_t child_of(uint32_t node, char byte) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> begins_{};  // the bytes that texts begin with
};

/// Immutable after parsing and safe to share.
class AddedTokens {
 public:
  /// Reads the `added_tokens` entry. Error for ids that are out of range, twice, or other than the
  /// vocabulary's or the next free ones, which `tokenizers` would give.
  static AddedTokens parse(const JsonView& json, const Bpe::Vocabulary& vocabulary,
                           const Normalizer& normalizer);

  /// A part of a text: a token where `token` is there, otherwise text between tokens.
  struct Part {
    std::string_view text;
    const AddedToken* token = nullptr;
  };
  using Sink = std::function<void(const Part&)>;

  /// Cuts raw text at the tokens that are looked for in it, or normalized text at the others.
  /// No part of text is empty.
  void split(std::string_view text, bool normalized, const Sink& sink) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  void add(const JsonView& json, int32_t expected_id, const Normalizer& normalizer);
  bool stands_alone(std::string_view text, const TextSpan& span) const;

  std::vector<AddedToken> tokens_;
  TextMatcher in_raw_;
  TextMatcher in_normalized_;
  std::optional<Regex> word_char_;  // when a token is for single words
};

}  // namespace blockptq
