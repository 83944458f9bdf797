// Text files as documents: what calibration and evaluation tokenize.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace blockptq {

enum class TextFormat : uint8_t {
  automatic,  // judged from the file name
  jsonl,      // one JSON object a line, whose string `text` is a document
  text,       // the file is one document
  wikitext    // one document: the lines, joined as the field does (docs/evaluation.md)
};

/// "auto", "jsonl", "text" or "wikitext", as --data_format takes them; Error for anything else.
TextFormat parse_text_format(std::string_view name);

struct Corpus {
  std::string path;  // for messages
  TextFormat format = TextFormat::text;
  std::vector<std::string> documents;  // at least one of them is not empty; all are valid UTF-8
  std::string fingerprint;             // SHA-256 of the decompressed file, in hexadecimal
};

/// Reads a text file; .gz and .zst are decompressed. Error naming the file, and the line or byte,
/// for what is not of the format, invalid UTF-8, a corrupt stream, a file without text, and for a
/// name that does not tell the format when `format` is automatic.
Corpus read_corpus(const std::filesystem::path& path, TextFormat format = TextFormat::automatic);

}  // namespace blockptq
