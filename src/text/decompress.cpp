#include "text/decompress.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace blockptq {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr int kGzipHeader = 15 + 16;  // the largest window; gzip, not bare zlib

/// Inflates one gzip stream of one or more members.
class Inflater {
 public:
  Inflater(std::span<const uint8_t> input, std::string path)
      : input_(input), path_(std::move(path)) {
    BPTQ_ASSERT(inflateInit2(&stream_, kGzipHeader) == Z_OK);
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  std::string run() {
    std::string output;
    std::vector<uint8_t> chunk(kChunk);
    bool member_ended = false;
    while (!input_.empty() || stream_.avail_in > 0 || !member_ended) {
      refill();
      if (member_ended) {
        check(inflateReset(&stream_) == Z_OK, "{}: cannot start the next gzip member", path_);
      }
      stream_.next_out = chunk.data();
      stream_.avail_out = static_cast<uInt>(chunk.size());
      const int status = inflate(&stream_, Z_NO_FLUSH);
      check(status != Z_BUF_ERROR, "{}: the gzip stream stops too early", path_);
      check(status == Z_OK || status == Z_STREAM_END, "{}: corrupt gzip stream: {}", path_,
            stream_.msg == nullptr ? "unknown error" : stream_.msg);
      output.append(reinterpret_cast<const char*>(chunk.data()), chunk.size() - stream_.avail_out);
      member_ended = status == Z_STREAM_END;
    }
    return output;
  }

 private:
  /// zlib counts its input in 32 bits.
  void refill() {
    if (stream_.avail_in > 0) {
      return;
    }
    const size_t size = std::min<size_t>(input_.size(), std::numeric_limits<uInt>::max());
    stream_.next_in = const_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(size);
    input_ = input_.subspan(size);
  }

  std::span<const uint8_t> input_;
  std::string path_;
  z_stream stream_{};
};

std::string decompress_zstd(std::span<const uint8_t> input, const std::string& path) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     ZSTD_freeDCtx);
  BPTQ_ASSERT(context != nullptr);
  std::string output;
  std::vector<uint8_t> chunk(kChunk);
  ZSTD_inBuffer source = {input.data(), input.size(), 0};
  size_t expected = 1;  // 0: a frame has just ended
  while (source.pos < source.size || expected != 0) {
    ZSTD_outBuffer target = {chunk.data(), chunk.size(), 0};
    const size_t before = source.pos;
    expected = ZSTD_decompressStream(context.get(), &target, &source);
    check(ZSTD_isError(expected) == 0, "{}: corrupt zstd stream: {}", path,
          ZSTD_getErrorName(expected));
    output.append(reinterpret_cast<const char*>(chunk.data()), target.pos);
    check(expected == 0 || source.pos > before || target.pos > 0,
          "{}: the zstd stream stops too early", path);
  }
  return output;
}

}  // namespace

std::string uncompressed_name(const std::filesystem::path& path) {
  const auto suffix = path.extension();
  return (suffix == ".gz" || suffix == ".zst" ? path.stem() : path.filename()).string();
}

std::string read_decompressed(const std::filesystem::path& path) {
  const MappedFile file(path);
  file.populate(0, file.bytes().size());
  if (path.extension() == ".gz") {
    return Inflater(file.bytes(), path.string()).run();
  }
  if (path.extension() == ".zst") {
    return decompress_zstd(file.bytes(), path.string());
  }
  return {file.bytes().begin(), file.bytes().end()};
}

}  // namespace blockptq
