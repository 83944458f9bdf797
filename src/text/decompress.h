// Compressed text files: .gz (zlib) and .zst (libzstd), told apart by the suffix of the name.
#pragma once

#include <filesystem>
#include <string>

namespace blockptq {

/// The name of `path` without a .gz or .zst suffix.
std::string uncompressed_name(const std::filesystem::path& path);

/// The contents of a file, decompressed where its name ends in .gz or .zst; files of several
/// members or frames are read to their end. Error when the stream is corrupt or stops too early.
std::string read_decompressed(const std::filesystem::path& path);

}  // namespace blockptq
