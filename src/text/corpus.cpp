#include "text/corpus.h"

#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "text/decompress.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  BPTQ_ASSERT(EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) ==
              1);
  return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + size, ""));
}

TextFormat format_of_name(const std::filesystem::path& path) {
  std::string name = uncompressed_name(path);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string suffix = std::filesystem::path(name).extension().string();
  if (suffix == ".jsonl") {
    return TextFormat::jsonl;
  }
  const bool is_wiki = name.find("wiki") != std::string::npos;
  if (is_wiki && (suffix == ".txt" || suffix == ".raw" || suffix == ".tokens")) {
    return TextFormat::wikitext;
  }
  check(suffix == ".txt",
        "{}: the name does not tell the format: pass --data_format jsonl, text or wikitext",
        path.string());
  return TextFormat::text;
}

/// Calls handle(line, number) for every line; a line keeps its newline, numbers count from 1.
template <class Handle>
void for_each_line(std::string_view text, const Handle& handle) {
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = text.find('\n', begin);
    const size_t end = newline == std::string_view::npos ? text.size() : newline + 1;
    handle(text.substr(begin, end - begin), ++number);
    begin = end;
  }
}

bool is_blank(std::string_view line) {
  for (size_t position = 0; position < line.size();) {
    const Utf8Char next = decode_utf8(line, position);
    if (!is_white_space(next.value)) {
      return false;
    }
    position += next.size;
  }
  return true;
}

std::vector<std::string> jsonl_documents(std::string_view content, const std::string& path) {
  std::vector<std::string> documents;
  for_each_line(content, [&](std::string_view line, size_t number) {
    if (is_blank(line)) {
      return;
    }
    const std::string origin = fmt::format("{}:{}", path, number);
    const Json object = parse_json(line, origin);
    documents.push_back(JsonView(object, origin).at("text").string());
  });
  return documents;
}

/// Rows are lines; an all-blank row is the empty string; two newlines between rows.
std::string wikitext_document(std::string_view content) {
  std::string document;
  document.reserve(content.size() + content.size() / 64);
  for_each_line(content, [&](std::string_view line, size_t number) {
    if (number > 1) {
      document += "\n\n";
    }
    if (!is_blank(line)) {
      document += line;
    }
  });
  return document;
}

}  // namespace

TextFormat parse_text_format(std::string_view name) {
  using Row = std::pair<std::string_view, TextFormat>;
  static constexpr std::array<Row, 4> kFormats = {
      Row{"auto", TextFormat::automatic}, Row{"jsonl", TextFormat::jsonl},
      Row{"text", TextFormat::text}, Row{"wikitext", TextFormat::wikitext}};
  const auto row =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const Row& r) { return r.first == name; });
  check(row != kFormats.end(), "data_format: expected auto, jsonl, text or wikitext, found '{}'",
        name);
  return row->second;
}

Corpus read_corpus(const std::filesystem::path& path, TextFormat format) {
  Corpus corpus;
  corpus.path = path.string();
  corpus.format = format == TextFormat::automatic ? format_of_name(path) : format;
  std::string content = read_decompressed(path);
  const size_t invalid = find_invalid_utf8(content);
  check(invalid == std::string::npos, "{}: invalid UTF-8 at byte {}", corpus.path, invalid);
  corpus.fingerprint = sha256_hex(content);
  if (corpus.format == TextFormat::jsonl) {
    corpus.documents = jsonl_documents(content, corpus.path);
  } else if (corpus.format == TextFormat::wikitext) {
    corpus.documents = {wikitext_document(content)};
  } else {
    corpus.documents = {std::move(content)};
  }
  check(std::any_of(corpus.documents.begin(), corpus.documents.end(),
                    [](const std::string& document) { return !document.empty(); }),
        "{}: no text in it", corpus.path);
  return corpus;
}

}  // namespace blockptq
