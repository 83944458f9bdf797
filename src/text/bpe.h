// The BPE model of tokenizer.json: the vocabulary, the merges, and the ids of one word.
//
// Byte-pair encoding (Sennrich et al., arXiv 1508.07909) over bytes: a word begins as one piece a
// byte; the adjacent pair of lowest rank, the leftmost of equals, is joined until none can be.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/pair_table.h"
#include "text/word_cache.h"

namespace blockptq {

/// Immutable after parsing and safe to share.
class Bpe {
 public:
  /// Reads the `model` entry. Error when it is no BPE model, when an id is out of range or twice,
  /// when a merge names a missing piece, and for options that would change ids.
  static Bpe parse(const JsonView& model);

  /// Appends the ids of one word (bytes, not empty). Time is n log n in its length. Error when the
  /// vocabulary lacks one of its bytes.
  void encode_word(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;

  using Vocabulary = std::unordered_map<std::string, int32_t>;
  /// Pieces as they are written in the file, and their ids.
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  void read_vocabulary(const JsonView& json);
  void read_merges(const JsonView& json);
  void read_bytes(const JsonView& model);
  void read_words();
  int32_t piece_id(const std::string& piece, const JsonView& merges, size_t index) const;
  int32_t byte_id(char byte) const;
  void merge_word(std::string_view word, std::vector<int32_t>& ids) const;
  void merge_short(std::string_view word, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view word, std::vector<int32_t>& ids) const;

  std::string origin_;
  Vocabulary vocabulary_;
  PairTable merges_;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks this byte
  Vocabulary words_;                     // bytes -> id, looked up before merging (ignore_merges)
};

}  // namespace blockptq
