#include "text/post_processor.h"

#include <limits>

#include "base/error.h"

namespace blockptq {
namespace {

/// Appends the ids of a special token that a template names.
void append_special(const JsonView& piece, const JsonView& special_tokens,
                    std::vector<int32_t>& ids) {
  const JsonView listed = special_tokens.at(piece.at("id").string()).at("ids");
  listed.expect_array();
  for (size_t i = 0; i < listed.size(); ++i) {
    ids.push_back(
        static_cast<int32_t>(listed.at(i).integer(0, std::numeric_limits<int32_t>::max())));
  }
}

/// The `single` template: special tokens around the text, which must be there once.
PostProcessor parse_template(const JsonView& json) {
  PostProcessor result;
  const JsonView pieces = json.at("single");
  pieces.expect_array();
  int texts = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const JsonView piece = pieces.at(i);
    if (piece.contains("Sequence")) {
      const std::string& id = piece.at("Sequence").at("id").string();
      check(id == "A", "{}: expected the text 'A', found '{}'", piece.where(), id);
      ++texts;
    } else {
      append_special(piece.at("SpecialToken"), json.at("special_tokens"),
                     texts == 0 ? result.prefix : result.suffix);
    }
  }
  check(texts == 1, "{}: expected the text once, found it {} times", pieces.where(), texts);
  return result;
}

}  // namespace

PostProcessor PostProcessor::parse(const JsonView& json) {
  PostProcessor result;
  if (json.raw().is_null()) {
    return result;
  }
  const std::string& type = json.at("type").string();
  if (type == "TemplateProcessing") {
    return parse_template(json);
  }
  if (type == "Sequence") {
    const JsonView parts = json.at("processors");
    parts.expect_array();
    for (size_t i = 0; i < parts.size(); ++i) {
      const PostProcessor part = parse(parts.at(i));
      result.prefix.insert(result.prefix.begin(), part.prefix.begin(), part.prefix.end());
      result.suffix.insert(result.suffix.end(), part.suffix.begin(), part.suffix.end());
    }
    return result;
  }
  check(type == "ByteLevel",
        "{}: unsupported post-processor, expected ByteLevel, TemplateProcessing or Sequence, found "
        "'{}'",
        json.where(), type);
  return result;
}

}  // namespace blockptq
