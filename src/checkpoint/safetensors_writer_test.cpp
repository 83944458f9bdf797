#include "checkpoint/safetensors_writer.h"

#include "base/file.h"
#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;
using testing_support::TempDir;

TEST(SafetensorsWriterTest, RoundTrip) {
  const TempDir dir;
  const std::vector<float> a{1.5F, -2.0F};
  const std::vector<uint8_t> b{7, 8, 9};
  const std::vector<TensorToWrite> tensors{{{"z", Dtype::f32, {1, 2}}, a.data()},
                                           {{"empty \"1\"", Dtype::i64, {0, 3}}, nullptr},
                                           {{"a", Dtype::u8, {3}}, b.data()},
                                           {{"scalar", Dtype::f32, {}}, a.data()}};
  write_safetensors(dir / "f.safetensors", tensors, {{"format", "pt"}, {"note", "\"\n"}});
  const SafetensorsFile file(dir / "f.safetensors");
  EXPECT_EQ(file.header().nbytes % 8, 0);
  EXPECT_EQ(file.header().metadata.at("note"), "\"\n");
  ASSERT_EQ(file.header().tensors.size(), 4);
  EXPECT_EQ(file.header().tensors[0].name, "z");
  const TensorBytes z = file.read(file.at("z"));
  std::vector<float> read_z(2);
  std::memcpy(read_z.data(), z.data(), 8);
  EXPECT_EQ(read_z, a);
  const TensorBytes read_b = file.read(file.at("a"));
  EXPECT_EQ(std::memcmp(read_b.data(), b.data(), 3), 0);
  EXPECT_EQ(file.at("empty \"1\"").shape, (Shape{0, 3}));
}

TEST(SafetensorsWriterTest, NoTensors) {
  const TempDir dir;
  write_safetensors(dir / "f.safetensors", std::span<const TensorToWrite>());
  EXPECT_EQ(read_file(dir / "f.safetensors"), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
}

TEST(SafetensorsWriterTest, StreamsInPieces) {
  const TempDir dir;
  const std::vector<TensorSpec> specs{{"a", Dtype::u8, {4}}, {"b", Dtype::u8, {2}}};
  write_safetensors(dir / "f.safetensors", specs, {}, [](size_t index, const Append& append) {
    for (int i = 0; i < (index == 0 ? 2 : 1); ++i) {
      append("xy", 2);
    }
  });
  const SafetensorsFile file(dir / "f.safetensors");
  const TensorBytes a = file.read(file.at("a"));
  EXPECT_EQ(std::memcmp(a.data(), "xyxy", 4), 0);
}

TEST(SafetensorsWriterTest, LeavesNothingBehindWhenTheSourceFails) {
  const TempDir dir;
  const std::vector<TensorSpec> specs{{"a", Dtype::u8, {4}}};
  EXPECT_EQ(refusal([&] {
              write_safetensors(dir / "f.safetensors", specs, {},
                                [](size_t, const Append&) { fail("no data"); });
            }),
            "no data");
  EXPECT_THROW(write_safetensors(dir / "f.safetensors", specs, {},
                                 [](size_t, const Append& append) { append("xy", 2); }),
               std::logic_error);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(SafetensorsWriterTest, RefusesTakenNamesAndHugeShapes) {
  const TempDir dir;
  const auto write = [&](const std::vector<TensorSpec>& specs) {
    return refusal([&] { write_safetensors(dir / "f", specs, {}, [](size_t, const Append&) {}); });
  };
  EXPECT_THAT(write({{"a", Dtype::u8, {0}}, {"a", Dtype::u8, {0}}}), HasSubstr("tensor a: a name"));
  EXPECT_THAT(write({{"a\xff", Dtype::u8, {0}}}), HasSubstr("invalid UTF-8"));
  EXPECT_THAT(write({{"__metadata__", Dtype::u8, {0}}}), HasSubstr("__metadata__"));
  EXPECT_THAT(write({{"a", Dtype::f64, {int64_t{1} << 61}}}), HasSubstr("does not fit"));
  EXPECT_THAT(write({{"a", Dtype::f64, {-1}}}), HasSubstr("does not fit"));
}

}  // namespace
}  // namespace blockptq
