#include "text/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <string>

#include "base/file.h"
#include "text/test_support.h"

namespace blockptq {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class CorpusTest : public testing::Test {
 protected:
  void SetUp() override { make_folder(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path file(const std::string& name, std::string_view content) const {
    auto path = folder_ / name;
    write_file_atomically(path, content);
    return path;
  }

 private:
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      fmt::format("corpus_{}_{}", getpid(),
                  testing::UnitTest::GetInstance()->current_test_info()->name());
};

std::string gzip(const std::string& content) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string output(deflateBound(&stream, content.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(output.data());
  stream.avail_out = static_cast<uInt>(output.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  output.resize(output.size() - stream.avail_out);
  deflateEnd(&stream);
  return output;
}

std::string zstd(const std::string& content) {
  std::string output(ZSTD_compressBound(content.size()), '\0');
  output.resize(ZSTD_compress(output.data(), output.size(), content.data(), content.size(), 3));
  return output;
}

TEST_F(CorpusTest, JsonlHasADocumentALine) {
  const auto path =
      file("a.jsonl", "{\"text\": \"one\\n\"}\r\n\n{\"id\": 1, \"text\": \"\u00e9\"}");
  const Corpus corpus = read_corpus(path);
  EXPECT_EQ(corpus.format, TextFormat::jsonl);
  EXPECT_THAT(corpus.documents, ElementsAre("one\n", "\u00e9"));
}

TEST_F(CorpusTest, JsonlErrorsNameTheLine) {
  const auto expect = [&](const std::string& content, const std::string& message) {
    EXPECT_ERROR(read_corpus(file("a.jsonl", content)), HasSubstr("a.jsonl:" + message));
  };
  expect("{\"text\": \"a\"}\n{\"text\": 3}\n", "2: text: expected a string, found 3");
  expect("{\"txt\": \"a\"}\n", "1: key 'text' is missing");
  expect("[\"a\"]\n", "1: expected an object");
  expect("\n\n{\"text\": \"a\"\n", "3: not valid JSON");
}

TEST_F(CorpusTest, TextIsOneDocument) {
  const Corpus corpus = read_corpus(file("a.txt", "one\n\ntwo"));
  EXPECT_EQ(corpus.format, TextFormat::text);
  EXPECT_THAT(corpus.documents, ElementsAre("one\n\ntwo"));
  // printf 'one\n\ntwo' | sha256sum
  EXPECT_EQ(corpus.fingerprint, "f1687a1c91e7dabb67da04e90073a106ff7ad470212e3c98986afd56472abef8");
}

TEST_F(CorpusTest, WikitextJoinsRowsWithBlankLinesBetween) {
  const Corpus corpus = read_corpus(file("Wiki.test.raw", " \n = T = \n \u3000\n x \n"));
  EXPECT_EQ(corpus.format, TextFormat::wikitext);
  EXPECT_THAT(corpus.documents, ElementsAre("\n\n = T = \n\n\n\n\n x \n"));
}

TEST_F(CorpusTest, FormatComesFromTheNameOrTheOption) {
  const auto path = file("wiki.txt", "a\nb\n");
  EXPECT_EQ(read_corpus(path).format, TextFormat::wikitext);
  EXPECT_EQ(read_corpus(path, parse_text_format("text")).documents.front(), "a\nb\n");
  EXPECT_EQ(read_corpus(file("b.md", "x"), parse_text_format("text")).documents.front(), "x");
  EXPECT_ERROR(read_corpus(file("wiki.md", "x")), HasSubstr("wiki.md: the name does not tell"));
  EXPECT_ERROR(read_corpus(file("a.raw.gz", "x")), HasSubstr("pass --data_format"));
  EXPECT_EQ(parse_text_format("auto"), TextFormat::automatic);
  EXPECT_ERROR(parse_text_format("csv"), HasSubstr("found 'csv'"));
}

TEST_F(CorpusTest, CompressedFilesReadAsTheyAre) {
  std::string content;
  for (int i = 0; i < 300000; ++i) {
    content += std::to_string(i) + "\n";
  }
  const Corpus plain = read_corpus(file("a.txt", content));
  const std::string half = content.substr(0, content.size() / 2);
  const std::string other_half = content.substr(half.size());
  for (const auto& [name, packed] : std::vector<std::pair<std::string, std::string>>{
           {"b.txt.gz", gzip(content)},
           {"c.txt.zst", zstd(content)},
           {"d.txt.gz", gzip(half) + gzip(other_half)},
           {"e.txt.zst", zstd(half) + zstd(other_half)}}) {
    const Corpus corpus = read_corpus(file(name, packed));
    EXPECT_EQ(corpus.documents, plain.documents) << name;
    EXPECT_EQ(corpus.fingerprint, plain.fingerprint) << name;
  }
}

TEST_F(CorpusTest, RefusesBrokenStreams) {
  const std::string content(100000, 'x');
  for (const bool is_gzip : {true, false}) {
    const std::string packed = is_gzip ? gzip(content) : zstd(content);
    const std::string name = is_gzip ? "a.txt.gz" : "a.txt.zst";
    for (const size_t size : {size_t{0}, size_t{5}, packed.size() / 2, packed.size() - 1}) {
      EXPECT_ERROR(read_corpus(file(name, packed.substr(0, size))),
                   AllOf(HasSubstr(name), HasSubstr("stops too early")));
    }
    EXPECT_ERROR(read_corpus(file(name, packed + "junk")), HasSubstr("corrupt"));
    EXPECT_ERROR(read_corpus(file(name, "not compressed at all")), HasSubstr("corrupt"));
  }
  std::string damaged = gzip(content);
  damaged[damaged.size() - 6] ^= 1;  // the checksum
  EXPECT_ERROR(read_corpus(file("b.txt.gz", damaged)), HasSubstr("corrupt gzip stream"));
}

TEST_F(CorpusTest, RefusesWhatHasNoText) {
  EXPECT_ERROR(read_corpus(file("a.txt", "")), HasSubstr("a.txt: no text in it"));
  EXPECT_ERROR(read_corpus(file("a.jsonl", "\n\n")), HasSubstr("no text in it"));
  EXPECT_ERROR(read_corpus(file("a.jsonl", "{\"text\": \"\"}\n")), HasSubstr("no text in it"));
  EXPECT_ERROR(read_corpus(file("wiki.txt", "")), HasSubstr("no text in it"));
  EXPECT_ERROR(read_corpus("/nowhere/a.txt"), HasSubstr("/nowhere/a.txt: cannot open"));
}

TEST_F(CorpusTest, RefusesInvalidUtf8) {
  for (const char* name : {"a.txt", "a.jsonl", "wiki.txt"}) {
    EXPECT_ERROR(read_corpus(file(name, "abc\xFFzzz")), HasSubstr("invalid UTF-8 at byte 3"));
  }
}

}  // namespace
}  // namespace blockptq
