#include "text/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

const Json kNull;

/// The member `key`, or null where it is missing.
JsonView member_or_null(const JsonView& json, std::string_view key, const std::string& origin) {
  return json.contains(key) ? json.at(key) : JsonView(kNull, origin, std::string(key));
}

bool is_there(const std::filesystem::path& path) {
  std::error_code status;
  return std::filesystem::exists(path, status);
}

/// What a piece decodes to: its bytes, or the piece itself when it is no byte-level text.
std::string decoded_piece(const std::string& piece) {
  return byte_level_bytes(piece).value_or(piece);
}

}  // namespace

/// The state of one call of encode.
struct Tokenizer::Encoding {
  explicit Encoding(size_t text_bytes) : cache(text_bytes) {}

  std::vector<int32_t> ids;
  WordCache cache;
  std::string normalized;
};

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  const std::filesystem::path config = folder / "tokenizer_config.json";
  check(is_there(file),
        "{}: the tokenizer is missing; expected tokenizer.json beside the weights: fetch it from "
        "where they come from",
        file.string());
  const std::string config_text = is_there(config) ? read_file(config) : "";
  return parse(read_file(file), config_text, file.string());
}

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, std::string_view tokenizer_config,
                           const std::string& origin) {
  const Json document = parse_json(tokenizer_json, origin);
  const JsonView root(document, origin);
  const std::string version = root.string_or("version", "1.0");
  check(version == "1.0", "{}: version: expected '1.0', found '{}'", origin, version);
  for (const char* key : {"truncation", "padding"}) {
    check(!root.find(key), "{}: {} is not supported, expected null", origin, key);
  }
  const auto member = [&](std::string_view key) { return member_or_null(root, key, origin); };
  Tokenizer result;
  result.normalizer_ = Normalizer::parse(member("normalizer"));
  result.pre_tokenizer_ = PreTokenizer::parse(member("pre_tokenizer"));
  result.bpe_ = Bpe::parse(root.at("model"));
  result.added_tokens_ =
      AddedTokens::parse(member("added_tokens"), result.bpe_.vocabulary(), result.normalizer_);
  result.post_processor_ = PostProcessor::parse(member("post_processor"));
  result.read_decoder(member("decoder"));
  if (!tokenizer_config.empty()) {
    const std::filesystem::path config =
        std::filesystem::path(origin).parent_path() / "tokenizer_config.json";
    const Json config_document = parse_json(tokenizer_config, config.string());
    result.read_config(JsonView(config_document, config.string()));
  }
  result.check_special_ids(origin);
  return result;
}

void Tokenizer::read_decoder(const JsonView& json) {
  const std::string& type = json.at("type").string();
  check(type == "ByteLevel", "{}: unsupported decoder, expected ByteLevel, found '{}'",
        json.where(), type);
  for (const auto& [piece, id] : bpe_.vocabulary()) {
    bytes_.emplace(id, decoded_piece(piece));
  }
  std::string storage;
  for (const AddedToken& token : added_tokens_.tokens()) {
    const bool normalized = token.normalized;
    bytes_[token.id] = decoded_piece(
        std::string(normalized ? normalizer_.normalize(token.content, storage) : token.content));
  }
  for (const auto& [id, bytes] : bytes_) {
    vocab_size_ = std::max(vocab_size_, int64_t{id} + 1);
  }
}

void Tokenizer::read_config(const JsonView& config) {
  config.expect_object();
  if (!post_processor_.adds_nothing()) {
    return;
  }
  if (config.boolean_or("add_bos_token", false)) {
    post_processor_.prefix.push_back(special_id(config, "bos_token"));
  }
  if (config.boolean_or("add_eos_token", false)) {
    post_processor_.suffix.push_back(special_id(config, "eos_token"));
  }
}

int32_t Tokenizer::special_id(const JsonView& config, std::string_view key) const {
  const JsonView token = config.at(key);
  const std::string& content =
      token.raw().is_object() ? token.at("content").string() : token.string();
  const auto& tokens = added_tokens_.tokens();
  const auto added = std::find_if(tokens.begin(), tokens.end(),
                                  [&](const AddedToken& t) { return t.content == content; });
  if (added != tokens.end()) {
    return added->id;
  }
  const auto piece = bpe_.vocabulary().find(content);
  check(piece != bpe_.vocabulary().end(), "{}: '{}' is no token of tokenizer.json", token.where(),
        content);
  return piece->second;
}

void Tokenizer::check_special_ids(const std::string& origin) const {
  for (const auto* ids : {&post_processor_.prefix, &post_processor_.suffix}) {
    for (const int32_t id : *ids) {
      check(bytes_.contains(id), "{}: post_processor: id {} is no token", origin, id);
    }
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  const size_t invalid = find_invalid_utf8(text);
  check(invalid == std::string_view::npos, "text to tokenize: invalid UTF-8 at byte {}", invalid);
  Encoding encoding(text.size());
  if (add_special_tokens) {
    encoding.ids = post_processor_.prefix;
  }
  added_tokens_.split(text, false, [&](const AddedTokens::Part& part) {
    if (part.token != nullptr) {
      encoding.ids.push_back(part.token->id);
    } else {
      encode_raw_part(part.text, encoding);
    }
  });
  if (add_special_tokens) {
    encoding.ids.insert(encoding.ids.end(), post_processor_.suffix.begin(),
                        post_processor_.suffix.end());
  }
  return std::move(encoding.ids);
}

void Tokenizer::encode_raw_part(std::string_view text, Encoding& encoding) const {
  const std::string_view normalized = normalizer_.normalize(text, encoding.normalized);
  const auto encode_word = [&](std::string_view word) {
    bpe_.encode_word(word, encoding.cache, encoding.ids);
  };
  added_tokens_.split(normalized, true, [&](const AddedTokens::Part& part) {
    if (part.token != nullptr) {
      encoding.ids.push_back(part.token->id);
    } else {
      pre_tokenizer_.split(part.text, encode_word);
    }
  });
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string bytes;
  for (const int32_t id : ids) {
    const auto piece = bytes_.find(id);
    check(piece != bytes_.end(), "token id {} is not in the vocabulary of the tokenizer", id);
    bytes += piece->second;
  }
  return replace_invalid_utf8(bytes);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  if (post_processor_.prefix.empty()) {
    return std::nullopt;
  }
  return post_processor_.prefix.front();
}

}  // namespace blockptq
