// The pre_tokenizer of tokenizer.json: cuts a text into the pieces that BPE merges within.
//
// Source: github.com/huggingface/tokenizers, tokenizers/src/pre_tokenizers (0.23).
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/regex.h"

namespace blockptq {

/// Split, Digits and Sequences of them, ending in ByteLevel. Immutable and safe to share.
class PreTokenizer {
 public:
  /// Reads the `pre_tokenizer` entry. Error for any other component, and when ByteLevel is not the
  /// last.
  static PreTokenizer parse(const JsonView& json);

  using Sink = std::function<void(std::string_view)>;

  /// Hands every piece of `text` (valid UTF-8) to `sink`, in order; a piece is valid during the
  /// call.
  void split(std::string_view text, const Sink& sink) const;

 private:
  /// What becomes of a match and of the text around it.
  enum class Behavior : uint8_t {
    isolated,
    removed,
    merged_with_previous,
    merged_with_next,
    contiguous
  };

  /// One cut of every piece that the stage before it made.
  struct Stage {
    Regex regex;
    Behavior behavior = Behavior::isolated;
    bool invert = false;
  };

  struct Run;

  void add(const JsonView& json);
  void add_split(const JsonView& json);
  void add_byte_level(const JsonView& json);
  static Behavior parse_behavior(const JsonView& json);
  static std::vector<TextSpan> merge_spans(RegexMatcher& matcher, const Stage& stage,
                                           std::string_view text);
  void split_from(size_t stage, std::string_view text, Run& run) const;

  std::vector<Stage> stages_;
  bool byte_level_ = false;
  bool add_prefix_space_ = false;
  size_t prefix_stage_ = 0;  // the stage before which ByteLevel puts the space
};

}  // namespace blockptq
