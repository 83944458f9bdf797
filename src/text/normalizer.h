// The normalizer of tokenizer.json: none, or Unicode NFC.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace blockptq {

/// Canonical composition of valid UTF-8, as Hugging Face `tokenizers` computes it: its Unicode is
/// older, and marks that it does not know stay where they are. Linear in the text.
std::string to_nfc(std::string_view text);

class Normalizer {
 public:
  /// Reads the `normalizer` entry: null, NFC, or a Sequence of these. Error for any other.
  static Normalizer parse(const JsonView& json);

  /// `text` itself where nothing changes, otherwise the contents of `storage`.
  std::string_view normalize(std::string_view text, std::string& storage) const;

 private:
  bool nfc_ = false;
};

}  // namespace blockptq
