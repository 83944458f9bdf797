#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/test_refusal.h"

namespace blockptq {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::refusal;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "blockptq-file-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  void TearDown() override {
    ::chmod(dir_.c_str(), 0700);
    fs::remove_all(dir_);
  }

  /// Bytes of the maps of files in dir_ that are in the resident set.
  int64_t resident_bytes() const {
    std::ifstream maps("/proc/self/smaps");
    int64_t total = 0;
    bool ours = false;
    for (std::string line; std::getline(maps, line);) {
      if (line.starts_with("Rss:")) {
        total += ours ? std::stoll(line.substr(4)) * 1024 : 0;
      } else if (line.find(": ") == std::string::npos) {
        ours = line.find(dir_.string()) != std::string::npos;
      }
    }
    return total;
  }

  fs::path dir_;
};

TEST_F(FileTest, WritesAndReads) {
  write_file_atomically(dir_ / "f", "hello");
  EXPECT_EQ(read_file(dir_ / "f"), "hello");
  write_file_atomically(dir_ / "f", "");
  EXPECT_EQ(read_file(dir_ / "f"), "");
  EXPECT_THAT(refusal([&] { read_file(dir_ / "none"); }), HasSubstr("none: cannot open"));
  EXPECT_THAT(refusal([&] { read_file(dir_); }), HasSubstr("not a regular file"));
  write_file_atomically(dir_ / "f", "123456");
  EXPECT_THAT(refusal([&] { read_file(dir_ / "f", 5); }), HasSubstr("6 bytes, expected at most 5"));
}

TEST_F(FileTest, AFailedWriteLeavesTheOldFile) {
  write_file_atomically(dir_ / "f", "old");
  EXPECT_EQ(refusal([&] {
              write_atomically(dir_ / "f", [](const Append& append) {
                append("new", 3);
                fail("interrupted");
              });
            }),
            "interrupted");
  EXPECT_EQ(read_file(dir_ / "f"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, NamesTheFileThatCannotBeWritten) {
  EXPECT_THAT(refusal([&] { write_file_atomically(dir_ / "none/f", "x"); }),
              HasSubstr("none/f: cannot create"));
  fs::create_directory(dir_ / "d");
  EXPECT_THAT(refusal([&] { write_file_atomically(dir_ / "d", "x"); }),
              HasSubstr("d: cannot rename into place"));
}

TEST_F(FileTest, MakesFolders) {
  make_folder(dir_ / "a/b");
  make_folder(dir_ / "a/b");
  EXPECT_TRUE(fs::is_directory(dir_ / "a/b"));
  write_file_atomically(dir_ / "f", "x");
  EXPECT_THAT(refusal([&] { make_folder(dir_ / "f"); }), HasSubstr("f: cannot create the folder"));
}

TEST_F(FileTest, ReleasedPagesLeaveTheResidentSet) {
  constexpr size_t kSize = size_t{8} << 20;
  write_file_atomically(dir_ / "f", std::string(kSize, 'x'));
  const MappedFile file(dir_ / "f");
  EXPECT_EQ(resident_bytes(), 0);
  file.prefetch(0, kSize);
  file.populate(0, kSize);
  EXPECT_EQ(resident_bytes(), kSize);
  file.release(0, kSize);
  EXPECT_EQ(resident_bytes(), 0);
  // Pieces with odd borders leave nothing behind either, although a fault maps neighbours.
  for (size_t at = 0; at < kSize; at += 12'345) {
    const size_t size = std::min<size_t>(12'345, kSize - at);
    file.populate(at, size);
    EXPECT_EQ(file.bytes()[at + size - 1], 'x');
    file.release(at, size);
  }
  EXPECT_EQ(resident_bytes(), 0);
  // Nor do pieces whose neighbours are never read.
  for (size_t at = 0; at + 12'345 < kSize; at += 300'000) {
    file.populate(at, 12'345);
    file.release(at, 12'345);
  }
  EXPECT_EQ(resident_bytes(), 0);
}

TEST_F(FileTest, MapsMove) {
  write_file_atomically(dir_ / "f", "abc");
  MappedFile first(dir_ / "f");
  const MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().size(), 3);
  EXPECT_EQ(second.bytes()[2], 'c');
}

TEST_F(FileTest, AFileThatShrinksIsAnErrorNotASignal) {
  write_file_atomically(dir_ / "f", std::string(size_t{1} << 20, 'x'));
  const MappedFile file(dir_ / "f");
  fs::resize_file(dir_ / "f", 4096);
  EXPECT_THAT(refusal([&] { file.populate(0, size_t{1} << 20); }), HasSubstr("f: cannot read"));
}

}  // namespace
}  // namespace blockptq
