#include "text/added_tokens.h"

#include <algorithm>
#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

// What the Rust crate `regex` calls \w: Oniguruma's, without six numbers and with the joiners.
constexpr std::string_view kWordChar = R"((?![\u00b2\u00b3\u00b9\u00bc-\u00be])[\w\u200c\u200d])";

/// Where the white space that ends at `end` begins.
size_t white_space_before(std::string_view text, size_t end) {
  while (end > 0) {
    const Utf8Char previous = decode_utf8_before(text, end);
    if (!is_white_space(previous.value)) {
      break;
    }
    end -= previous.size;
  }
  return end;
}

/// Where the white space that begins at `begin` ends.
size_t white_space_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Char next = decode_utf8(text, begin);
    if (!is_white_space(next.value)) {
      break;
    }
    begin += next.size;
  }
  return begin;
}

}  // namespace

uint32_t TextMatcher::child_of(uint32_t node, char byte) const {
  uint32_t child = nodes_[node].first_child;
  while (child != 0 && nodes_[child].byte != byte) {
    child = nodes_[child].sibling;
  }
  return child;
}

bool TextMatcher::add(std::string_view text, size_t token) {
  begins_[static_cast<uint8_t>(text.front())] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    uint32_t child = child_of(node, byte);
    if (child == 0) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({byte, 0, nodes_[node].first_child, std::nullopt});
      nodes_[node].first_child = child;
    }
    node = child;
  }
  if (nodes_[node].token) {
    return false;
  }
  nodes_[node].token = token;
  return true;
}

std::optional<TextMatcher::Match> TextMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) {
      continue;
    }
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      node = child_of(node, text[end]);
      if (node == 0) {
        break;
      }
      if (nodes_[node].token) {
        longest = Match{{begin, end + 1}, *nodes_[node].token};
      }
    }
    if (longest) {
      return longest;
    }
  }
  return std::nullopt;
}

AddedTokens AddedTokens::parse(const JsonView& json, const Bpe::Vocabulary& vocabulary,
                               const Normalizer& normalizer) {
  AddedTokens result;
  if (json.raw().is_null()) {
    return result;
  }
  json.expect_array();
  std::unordered_set<std::string> contents;
  std::unordered_set<int32_t> taken;
  for (const auto& [piece, id] : vocabulary) {
    taken.insert(id);
  }
  auto next_id = static_cast<int64_t>(vocabulary.size());
  for (size_t i = 0; i < json.size(); ++i) {
    const JsonView entry = json.at(i);
    const std::string& content = entry.at("content").string();
    check(contents.insert(content).second, "{}: the added token '{}' twice", entry.where(),
          content);
    const auto known = vocabulary.find(content);
    if (known != vocabulary.end()) {
      result.add(entry, known->second, normalizer);
      continue;
    }
    check(next_id <= std::numeric_limits<int32_t>::max() &&
              taken.insert(static_cast<int32_t>(next_id)).second,
          "{}: id {} twice: a piece of the vocabulary has it", entry.where(), next_id);
    result.add(entry, static_cast<int32_t>(next_id), normalizer);
    ++next_id;
  }
  return result;
}

void AddedTokens::add(const JsonView& json, int32_t expected_id, const Normalizer& normalizer) {
  AddedToken token;
  token.content = json.at("content").string();
  check(!token.content.empty(), "{}: an added token without content", json.where());
  const JsonView id = json.at("id");
  token.id = static_cast<int32_t>(id.integer(0, std::numeric_limits<int32_t>::max()));
  check(token.id == expected_id,
        "{}: expected {}, which the vocabulary (or the order of the added tokens) gives '{}', "
        "found {}",
        id.where(), expected_id, token.content, token.id);
  token.single_word = json.boolean_or("single_word", false);
  token.lstrip = json.boolean_or("lstrip", false);
  token.rstrip = json.boolean_or("rstrip", false);
  token.normalized = json.boolean_or("normalized", true);
  if (token.single_word && !word_char_) {
    word_char_ = Regex::parse(kWordChar, json.where());
  }
  std::string storage;
  const std::string_view text =
      token.normalized ? normalizer.normalize(token.content, storage) : token.content;
  check((token.normalized ? in_normalized_ : in_raw_).add(text, tokens_.size()),
        "{}: '{}' is the normalized form of another added token", json.where(), text);
  tokens_.push_back(std::move(token));
}

bool AddedTokens::stands_alone(std::string_view text, const TextSpan& span) const {
  RegexMatcher matcher(*word_char_);
  TextSpan ignored;
  const auto is_word_char = [&](size_t begin, size_t size) {
    return matcher.search(text.substr(begin, size), 0, ignored);
  };
  if (span.begin > 0) {
    const size_t size = decode_utf8_before(text, span.begin).size;
    if (is_word_char(span.begin - size, size)) {
      return false;
    }
  }
  return span.end == text.size() || !is_word_char(span.end, decode_utf8(text, span.end).size);
}

void AddedTokens::split(std::string_view text, bool normalized, const Sink& sink) const {
  const TextMatcher& matcher = normalized ? in_normalized_ : in_raw_;
  size_t covered = 0;
  for (size_t from = 0; const auto match = matcher.find(text, from);) {
    const AddedToken& token = tokens_[match->token];
    TextSpan span = match->span;
    from = span.end;
    if (token.single_word && !stands_alone(text, span)) {
      continue;
    }
    if (token.lstrip) {
      span.begin = std::max(white_space_before(text, span.begin), covered);
    }
    if (token.rstrip) {
      span.end = white_space_after(text, span.end);
    }
    if (covered < span.begin) {
      sink({text.substr(covered, span.begin - covered), nullptr});
    }
    sink({{}, &token});
    covered = span.end;
  }
  if (covered < text.size()) {
    sink({text.substr(covered), nullptr});
  }
}

}  // namespace blockptq
