// Token windows: sequences of equal length, cut from the tokens of a corpus.
//
// Every document is tokenized with the tokenizer's default special tokens (BOS where the model has
// one), the documents are concatenated in file order and cut; what is left over at the end is
// dropped.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "text/corpus.h"
#include "text/tokenizer.h"

namespace blockptq {

struct TokenWindows {
  int64_t seq_len = 0;
  std::vector<int32_t> ids;  // [count, seq_len], row-major
  int64_t total_tokens = 0;  // of the documents that were read: reading stops when the windows are
                             // full

  int64_t count() const { return seq_len == 0 ? 0 : static_cast<int64_t>(ids.size()) / seq_len; }
  std::span<const int32_t> window(int64_t index) const {
    return std::span(ids).subspan(static_cast<size_t>(index * seq_len),
                                  static_cast<size_t>(seq_len));
  }
};

/// All windows of `seq_len` tokens, or the first `max_windows`. Error when there is not one, and
/// for a token id >= `vocab_size`, the model's.
TokenWindows evaluation_windows(const Corpus& corpus, const Tokenizer& tokenizer,
                                int64_t vocab_size, int64_t seq_len,
                                std::optional<int64_t> max_windows = std::nullopt);

/// The first `nsamples` windows of `seq_len` tokens. Error when there are fewer, and for a token id
/// >= `vocab_size`, the model's.
TokenWindows calibration_windows(const Corpus& corpus, const Tokenizer& tokenizer,
                                 int64_t vocab_size, int64_t seq_len, int64_t nsamples);

}  // namespace blockptq
