#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

/// The scratch memory of one call.
struct PreTokenizer::Run {
  std::vector<RegexMatcher> matchers;
  const Sink& sink;
};

PreTokenizer PreTokenizer::parse(const JsonView& json) {
  PreTokenizer result;
  check(!json.raw().is_null(),
        "{}: unsupported pre-tokenizer, expected a Sequence that ends in ByteLevel, found null",
        json.where());
  result.add(json);
  check(result.byte_level_, "{}: unsupported pre-tokenizer, expected ByteLevel as the last",
        json.where());
  return result;
}

void PreTokenizer::add(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    const JsonView parts = json.at("pretokenizers");
    parts.expect_array();
    for (size_t i = 0; i < parts.size(); ++i) {
      add(parts.at(i));
    }
    return;
  }
  check(!byte_level_, "{}: unsupported pre-tokenizer, expected nothing after ByteLevel, found '{}'",
        json.where(), type);
  if (type == "Split") {
    add_split(json);
  } else if (type == "Digits") {
    const bool individual = json.at("individual_digits").boolean();
    stages_.push_back({Regex::parse(R"(\p{N})", json.where()),
                       individual ? Behavior::isolated : Behavior::contiguous});
  } else if (type == "ByteLevel") {
    add_byte_level(json);
  } else {
    fail("{}: unsupported pre-tokenizer, expected Sequence, Split, Digits or ByteLevel, found '{}'",
         json.where(), type);
  }
}

void PreTokenizer::add_split(const JsonView& json) {
  const JsonView pattern = json.at("pattern");
  const bool is_regex = pattern.contains("Regex");
  const JsonView text = pattern.at(is_regex ? "Regex" : "String");
  check(pattern.size() == 1, "{}: expected either 'Regex' or 'String', found {} keys",
        pattern.where(), pattern.size());
  stages_.push_back(
      {is_regex ? Regex::parse(text.string(), text.where()) : Regex::literal(text.string()),
       parse_behavior(json.at("behavior")), json.at("invert").boolean()});
}

PreTokenizer::Behavior PreTokenizer::parse_behavior(const JsonView& json) {
  using Row = std::pair<std::string_view, Behavior>;
  static constexpr std::array<Row, 5> kBehaviors = {
      Row{"Isolated", Behavior::isolated}, Row{"Removed", Behavior::removed},
      Row{"MergedWithPrevious", Behavior::merged_with_previous},
      Row{"MergedWithNext", Behavior::merged_with_next}, Row{"Contiguous", Behavior::contiguous}};
  const std::string& name = json.string();
  const auto row = std::find_if(kBehaviors.begin(), kBehaviors.end(),
                                [&](const Row& r) { return r.first == name; });
  check(row != kBehaviors.end(), "{}: unknown behavior '{}'", json.where(), name);
  return row->second;
}

void PreTokenizer::add_byte_level(const JsonView& json) {
  byte_level_ = true;
  add_prefix_space_ = json.at("add_prefix_space").boolean();
  prefix_stage_ = stages_.size();
  if (json.boolean_or("use_regex", true)) {
    stages_.push_back({Regex::parse(kGpt2Pattern, json.where())});
  }
}

void PreTokenizer::split(std::string_view text, const Sink& sink) const {
  Run run{{}, sink};
  run.matchers.reserve(stages_.size());
  for (const Stage& stage : stages_) {
    run.matchers.emplace_back(stage.regex);
  }
  split_from(0, text, run);
}

void PreTokenizer::split_from(size_t stage, std::string_view text, Run& run) const {
  if (text.empty()) {
    return;
  }
  std::string prefixed;
  if (stage == prefix_stage_ && add_prefix_space_ && text.front() != ' ') {
    prefixed = " ";
    prefixed += text;
    text = prefixed;
  }
  if (stage == stages_.size()) {
    run.sink(text);
    return;
  }
  const auto descend = [&](const TextSpan& span) {
    split_from(stage + 1, text.substr(span.begin, span.end - span.begin), run);
  };
  const Stage& cut = stages_[stage];
  RegexMatcher& matcher = run.matchers[stage];
  if (cut.behavior == Behavior::isolated) {
    matcher.for_each_span(text, [&](const TextSpan& span, bool) { descend(span); });
  } else if (cut.behavior == Behavior::removed) {
    matcher.for_each_span(text, [&](const TextSpan& span, bool is_match) {
      if (is_match == cut.invert) {
        descend(span);
      }
    });
  } else {
    for (const TextSpan& span : merge_spans(matcher, cut, text)) {
      descend(span);
    }
  }
}

/// The spans of a stage that joins neighbours; joining follows NormalizedString::split.
std::vector<TextSpan> PreTokenizer::merge_spans(RegexMatcher& matcher, const Stage& stage,
                                                std::string_view text) {
  std::vector<std::pair<TextSpan, bool>> spans;
  matcher.for_each_span(text, [&](const TextSpan& span, bool is_match) {
    spans.emplace_back(span, is_match != stage.invert);
  });
  const bool backwards = stage.behavior == Behavior::merged_with_next;
  if (backwards) {
    std::reverse(spans.begin(), spans.end());
  }
  std::vector<TextSpan> merged;
  bool previous_match = false;
  for (const auto& [span, is_match] : spans) {
    const bool joins = stage.behavior == Behavior::contiguous ? is_match == previous_match
                                                              : is_match && !previous_match;
    previous_match = is_match;
    if (!joins || merged.empty()) {
      merged.push_back(span);
    } else if (backwards) {
      merged.back().begin = span.begin;
    } else {
      merged.back().end = span.end;
    }
  }
  if (backwards) {
    std::reverse(merged.begin(), merged.end());
  }
  return merged;
}

}  // namespace blockptq
