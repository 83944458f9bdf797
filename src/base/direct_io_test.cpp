#include "base/direct_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "base/test_refusal.h"

namespace blockptq {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::refusal;

/// In the working folder, which is on a disk, and in memory, which has no direct access before
/// Linux 6.6.
class DirectIoTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string name = (fs::path(GetParam()) / "blockptq-direct-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      GTEST_SKIP() << "cannot write to " << GetParam();
    }
    dir_ = name;
  }
  void TearDown() override {
    if (!dir_.empty()) {
      fs::remove_all(dir_);
    }
  }

  static std::string bytes(size_t size) {
    std::string text(size, '\0');
    for (size_t i = 0; i < size; ++i) {
      text[i] = static_cast<char>((i * 2654435761U) >> 13);
    }
    return text;
  }

  fs::path dir_;
};

TEST_P(DirectIoTest, WritesFilesOfAnySizeInPortionsOfAnySize) {
  for (const size_t size : {size_t{0}, size_t{5}, size_t{2} << 20, (size_t{7} << 20) + 4097}) {
    const std::string text = bytes(size);
    write_atomically(dir_ / "f", [&](const Append& append) {
      size_t portion = 1;
      for (size_t done = 0; done < size; portion = portion * 5 + 3) {
        const size_t count = std::min(portion, size - done);
        append(text.data() + done, count);
        done += count;
      }
    });
    EXPECT_TRUE(read_file(dir_ / "f") == text) << size << " bytes";
  }
}

TEST_P(DirectIoTest, ReadsAnyRangeAsAlignedAsItsOffset) {
  const std::string text = bytes((3 << 20) + 123);
  write_file_atomically(dir_ / "f", text);
  const DirectReader reader(dir_ / "f");
  for (const auto& [offset, size] : std::vector<std::pair<size_t, size_t>>{
           {0, 1}, {4095, 2}, {4096, 4096}, {10008, 1 << 20}, {text.size() - 7, 7}, {8, 0}}) {
    const auto found = reader.read(offset, size);
    EXPECT_TRUE(std::equal(found.get(), found.get() + size,
                           reinterpret_cast<const uint8_t*>(text.data()) + offset))
        << size << " bytes at " << offset;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found.get()) % 8, offset % 8);
  }
  EXPECT_THAT(refusal([&] { reader.read(text.size() - 3, 4); }), HasSubstr("the file ends before"));
  EXPECT_THAT(refusal([&] { DirectReader(dir_ / "none"); }), HasSubstr("none: cannot open"));
}

INSTANTIATE_TEST_SUITE_P(Places, DirectIoTest, testing::Values(".", "/dev/shm"));

}  // namespace
}  // namespace blockptq
