// Text to token ids and back, as Hugging Face `tokenizers` 0.23 does it for byte-level BPE.
//
// A tokenizer.json is followed to the id or refused: a component or option that is not supported is
// an Error that names it. Ids are tested against `tokenizers` (tokenizer_test.cpp).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"

namespace blockptq {

/// Immutable after loading; one object may serve many threads.
class Tokenizer {
 public:
  /// Reads tokenizer.json and, where there is one, tokenizer_config.json of a checkpoint folder.
  /// Error naming file and key.
  static Tokenizer load(const std::filesystem::path& folder);

  /// The same from the contents of the files; `tokenizer_config` may be empty. `origin` names
  /// tokenizer.json in errors.
  static Tokenizer parse(std::string_view tokenizer_json, std::string_view tokenizer_config,
                         const std::string& origin);

  /// The ids of `text`, with the special tokens that the model's own tokenizer puts around a text
  /// unless told otherwise. Those are the post-processor's; when it adds nothing, add_bos_token and
  /// add_eos_token of tokenizer_config.json decide. Linear in the text. Error for invalid UTF-8.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;

  /// The text of `ids`, special tokens included; bytes that make no UTF-8 become U+FFFD. Error for
  /// an id that no piece has.
  std::string decode(std::span<const int32_t> ids) const;

  /// The largest id + 1.
  int64_t vocab_size() const { return vocab_size_; }

  /// The first id that `encode` puts in front of a text; nothing when it puts none there.
  std::optional<int32_t> bos_id() const;

 private:
  struct Encoding;

  void read_config(const JsonView& config);
  int32_t special_id(const JsonView& config, std::string_view key) const;
  void read_decoder(const JsonView& json);
  void check_special_ids(const std::string& origin) const;
  void encode_raw_part(std::string_view text, Encoding& encoding) const;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  Bpe bpe_;
  AddedTokens added_tokens_;
  PostProcessor post_processor_;
  std::unordered_map<int32_t, std::string> bytes_;  // id -> what it decodes to
  int64_t vocab_size_ = 0;
};

}  // namespace blockptq
