// The post_processor of tokenizer.json: the ids that stand before and after those of a text.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"

namespace blockptq {

struct PostProcessor {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;

  /// Reads the `post_processor` entry: null, ByteLevel (which moves offsets only),
  /// TemplateProcessing, or a Sequence of these. Error for any other.
  static PostProcessor parse(const JsonView& json);

  bool adds_nothing() const { return prefix.empty() && suffix.empty(); }
};

}  // namespace blockptq
