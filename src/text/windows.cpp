#include "text/windows.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace blockptq {
namespace {

/// Tokenizes until `max_windows` windows are full or the corpus ends.
TokenWindows cut_windows(const Corpus& corpus, const Tokenizer& tokenizer, int64_t vocab_size,
                         int64_t seq_len, int64_t max_windows) {
  TokenWindows windows;
  windows.seq_len = seq_len;
  for (size_t i = 0; i < corpus.documents.size(); ++i) {
    if (static_cast<int64_t>(windows.ids.size()) / seq_len >= max_windows) {
      break;
    }
    const std::vector<int32_t> ids = tokenizer.encode(corpus.documents[i]);
    const auto foreign =
        std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id >= vocab_size; });
    check(foreign == ids.end(),
          "{}: document {} has token id {}, expected ids below the model's vocab_size {}: is this "
          "the model's own tokenizer?",
          corpus.path, i + 1, foreign == ids.end() ? 0 : *foreign, vocab_size);
    windows.ids.insert(windows.ids.end(), ids.begin(), ids.end());
  }
  windows.total_tokens = static_cast<int64_t>(windows.ids.size());
  const int64_t count = std::min(windows.total_tokens / seq_len, max_windows);
  windows.ids.resize(static_cast<size_t>(count * seq_len));
  return windows;
}

}  // namespace

TokenWindows evaluation_windows(const Corpus& corpus, const Tokenizer& tokenizer,
                                int64_t vocab_size, int64_t seq_len,
                                std::optional<int64_t> max_windows) {
  check(seq_len > 0, "seq_len: expected at least 1, found {}", seq_len);
  check(max_windows.value_or(1) > 0, "number of sequences: expected at least 1, found {}",
        max_windows.value_or(1));
  TokenWindows windows = cut_windows(corpus, tokenizer, vocab_size, seq_len,
                                     max_windows.value_or(std::numeric_limits<int64_t>::max()));
  check(windows.count() > 0,
        "{}: {} tokens, expected at least one sequence of {}: use more text or shorter sequences",
        corpus.path, windows.total_tokens, seq_len);
  return windows;
}

TokenWindows calibration_windows(const Corpus& corpus, const Tokenizer& tokenizer,
                                 int64_t vocab_size, int64_t seq_len, int64_t nsamples) {
  check(seq_len > 0, "seq_len: expected at least 1, found {}", seq_len);
  check(nsamples > 0, "nsamples: expected at least 1, found {}", nsamples);
  TokenWindows windows = cut_windows(corpus, tokenizer, vocab_size, seq_len, nsamples);
  check(windows.count() == nsamples,
        "{}: {} tokens make {} sequences of {}, expected {}: use more text, or fewer or shorter "
        "sequences",
        corpus.path, windows.total_tokens, windows.count(), seq_len, nsamples);
  return windows;
}

}  // namespace blockptq
