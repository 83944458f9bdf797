#include "checkpoint/safetensors.h"

#include <chrono>

#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::length_field;
using testing_support::raw_file;
using testing_support::refusal;
using testing_support::TempDir;
using testing_support::write_text;

SafetensorsHeader parse(std::string_view file) {
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  return parse_safetensors_header(bytes, static_cast<int64_t>(file.size()), "x.safetensors");
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":{}}})", dtype, shape, offsets);
}

/// A header of one tensor "a".
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{\"a\":" + entry(dtype, shape, offsets) + "}";
}

struct Refused {
  const char* what;
  std::string file;
  const char* message;
};

class RefusedHeaderTest : public testing::TestWithParam<Refused> {};

TEST_P(RefusedHeaderTest, NamesFileAndReason) {
  const std::string message = refusal([] { parse(GetParam().file); });
  EXPECT_THAT(message, HasSubstr("x.safetensors"));
  EXPECT_THAT(message, HasSubstr(GetParam().message));
}

std::vector<Refused> length_cases() {
  return {
      {"empty file", "", "0 bytes, expected at least 8"},
      {"short file", "1234567", "7 bytes, expected at least 8"},
      {"zero length", length_field(0), "header length 0, expected at least 2"},
      {"length one", length_field(1) + "{", "header length 1, expected at least 2"},
      {"over 100 MB", length_field(100'000'001) + "{}", "expected at most 100000000"},
      {"over the file", length_field(3) + "{}", "truncated: header of 3 bytes, but only 2"},
      {"near 2^64", length_field(~uint64_t{0}) + "{}", "expected at most"},
      {"wraps around", length_field(~uint64_t{0} - 7) + "{}", "expected at most"},
      {"sign bit", length_field(uint64_t{1} << 63) + "{}", "expected at most"},
  };
}

std::vector<Refused> json_cases() {
  const std::string ok = entry("U8", "[1]", "[0,1]");
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  return {
      {"array", raw_file("[]"), "expected a JSON object"},
      {"leading space", raw_file(" {}"), "expected a JSON object"},
      {"byte order mark", raw_file("\xef\xbb\xbf{}"), "expected a JSON object"},
      {"cut off", raw_file("{\"a\":"), "not valid JSON"},
      {"second value", raw_file("{}{}"), "not valid JSON"},
      {"trailing NUL", raw_file(std::string_view("{}\0", 3)), "not valid JSON"},
      {"comment", raw_file("{/**/}"), "not valid JSON"},
      {"invalid UTF-8", raw_file("{\"a\xff\":" + ok + "}", 1), "not valid JSON"},
      {"overlong UTF-8", raw_file("{\"\xc0\xaf\":" + ok + "}", 1), "not valid JSON"},
      {"lone surrogate", raw_file(R"({"\ud800":)" + ok + "}", 1), "not valid JSON"},
      {"same tensor twice", raw_file("{\"a\":" + ok + ",\"a\":" + ok + "}", 1), "duplicate key"},
      {"same tensor, escaped", raw_file(R"({"a":)" + ok + R"(,"\u0061":)" + ok + "}", 1),
       "duplicate key"},
      {"same key twice",
       raw_file(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
       "duplicate key"},
      {"deep nesting", raw_file("{\"a\":" + deep + "}"), "nested deeper"},
      {"metadata string", raw_file(R"({"__metadata__":"x"})"), "__metadata__: expected an object"},
      {"metadata number", raw_file(R"({"__metadata__":{"k":1}})"),
       "__metadata__.k: expected a string, found 1"},
      {"metadata null", raw_file(R"({"__metadata__":{"k":null}})"), "expected a string"},
      {"metadata nested", raw_file(R"({"__metadata__":{"k":{}}})"), "expected a string"},
  };
}

std::vector<Refused> entry_cases() {
  return {
      {"tensor no object", raw_file(R"({"a":1})"), "a: expected an object, found 1"},
      {"no dtype", raw_file(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1),
       "'dtype' is missing"},
      {"no shape", raw_file(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1),
       "'shape' is missing"},
      {"no offsets", raw_file(R"({"a":{"dtype":"U8","shape":[1]}})", 1),
       "'data_offsets' is missing"},
      {"unknown key", raw_file(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1),
       "tensor a: unknown key \"x\""},
      {"unknown dtype", raw_file(one("F13", "[1]", "[0,1]"), 1), "tensor a: unknown dtype \"F13\""},
      {"dtype number", raw_file(R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1),
       "a.dtype: expected a string, found 8"},
      {"shape no array", raw_file(one("U8", "1", "[0,1]"), 1), "a.shape: expected an array"},
      {"shape object", raw_file(one("U8", "{}", "[0,1]"), 1), "a.shape: expected an array"},
      {"negative", raw_file(one("U8", "[-1]", "[0,1]"), 1), "expected an integer >= 0, found -1"},
      {"fractional", raw_file(one("U8", "[1.0]", "[0,1]"), 1),
       "expected an integer >= 0, found 1.0"},
      {"exponent", raw_file(one("U8", "[1e0]", "[0,1]"), 1), "expected an integer >= 0"},
      {"boolean", raw_file(one("U8", "[true]", "[0,1]"), 1),
       "expected an integer >= 0, found true"},
      {"string", raw_file(one("U8", "[\"1\"]", "[0,1]"), 1), "expected an integer >= 0"},
      {"above int64", raw_file(one("U8", "[9223372036854775808]", "[0,1]"), 1),
       "expected an integer >= 0"},
      {"above uint64", raw_file(one("U8", "[18446744073709551617]", "[0,1]"), 1),
       "expected an integer >= 0"},
      {"overflow", raw_file(one("U8", "[4294967296,4294967296]", "[0,1]"), 1),
       "does not fit in 64 bits"},
      {"overflow to 0", raw_file(one("F32", "[4611686018427387904]", "[0,0]")),
       "does not fit in 64 bits"},
      {"overflow beside 0", raw_file(one("U8", "[0,4294967296,4294967296]", "[0,0]")),
       "does not fit in 64 bits"},
      {"control character", raw_file(R"({"a\nb":)" + entry("U8", "[1]", "[0,1]") + "}", 1),
       "control characters"},
  };
}

std::vector<Refused> offset_cases() {
  const auto two = [](std::string_view first, std::string_view second) {
    return "{\"a\":" + entry("U8", "[2]", first) + ",\"b\":" + entry("U8", "[2]", second) + "}";
  };
  return {
      {"span too long", raw_file(one("F32", "[1]", "[0,5]"), 5),
       "tensor a: F32 [1] has 4 bytes, data_offsets [0, 5] span 5"},
      {"span too short", raw_file(one("F32", "[2]", "[0,4]"), 4), "has 8 bytes"},
      {"span of empty", raw_file(one("F32", "[0]", "[0,4]"), 4), "has 0 bytes"},
      {"reversed", raw_file(one("U8", "[1]", "[1,0]"), 1), "the end lies before the begin"},
      {"past the end", raw_file(one("U8", "[2]", "[0,2]"), 1), "past the end of the file"},
      {"far past the end",
       raw_file(one("U8", "[1]", "[9223372036854775806,9223372036854775807]"), 1),
       "past the end of the file"},
      {"negative offset", raw_file(one("U8", "[1]", "[-1,0]"), 1), "expected an integer >= 0"},
      {"fractional offset", raw_file(one("U8", "[1]", "[0,1.0]"), 1), "expected an integer >= 0"},
      {"three offsets", raw_file(one("U8", "[1]", "[0,1,2]"), 1), "expected 2 numbers, found 3"},
      {"no array", raw_file(one("U8", "[1]", "1"), 1), "data_offsets: expected an array"},
      {"overlap", raw_file(two("[0,2]", "[1,3]"), 3),
       "tensor b: begins at byte 1 of the data and overlaps"},
      {"same bytes", raw_file(two("[0,2]", "[0,2]"), 2), "overlaps"},
      {"hole", raw_file(two("[0,2]", "[3,5]"), 5),
       "tensor b: begins at byte 3 of the data, which leaves a hole after byte 2"},
      {"hole at the start", raw_file(one("U8", "[1]", "[1,2]"), 2), "hole after byte 0"},
      {"trailing bytes", raw_file(one("U8", "[1]", "[0,1]"), 3), "2 trailing bytes"},
      {"bytes without tensors", raw_file("{}", 1), "1 trailing bytes"},
  };
}

std::string case_name(const testing::TestParamInfo<Refused>& info) {
  std::string name;
  for (const char c : std::string_view(info.param.what)) {
    name.push_back(std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_');
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Length, RefusedHeaderTest, testing::ValuesIn(length_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Json, RefusedHeaderTest, testing::ValuesIn(json_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Entry, RefusedHeaderTest, testing::ValuesIn(entry_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Offset, RefusedHeaderTest, testing::ValuesIn(offset_cases()), case_name);

TEST(SafetensorsHeaderTest, NoTensors) {
  const SafetensorsHeader header = parse(raw_file("{}"));
  EXPECT_TRUE(header.tensors.empty());
  EXPECT_EQ(header.nbytes, 10);
}

TEST(SafetensorsHeaderTest, TrailingSpaces) {
  const SafetensorsHeader header = parse(raw_file(one("U8", "[3]", "[0,3]") + "      ", 3));
  ASSERT_EQ(header.tensors.size(), 1);
  EXPECT_EQ(header.tensors[0].offset, header.nbytes);
  EXPECT_EQ(header.tensors[0].nbytes, 3);
}

TEST(SafetensorsHeaderTest, Rank0AndEmptyTensorsAnywhere) {
  const std::string text = "{\"c\":" + entry("F32", "[0,7]", "[4,4]") +
                           ",\"b\":" + entry("F32", "[]", "[0,4]") +
                           ",\"a\":" + entry("I64", "[0]", "[0,0]") + "}";
  const SafetensorsHeader header = parse(raw_file(text, 4));
  ASSERT_EQ(header.tensors.size(), 3);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[1].name, "b");
  EXPECT_TRUE(header.tensors[1].shape.empty());
  EXPECT_EQ(header.tensors[1].nbytes, 4);
  EXPECT_EQ(header.tensors[2].shape, (Shape{0, 7}));
}

TEST(SafetensorsHeaderTest, TensorsComeInFileOrder) {
  const std::string text = R"({"__metadata__":{"format":"pt"},"a":)" + entry("U8", "[2]", "[4,6]") +
                           ",\"b\":" + entry("BF16", "[1,2]", "[0,4]") + "}";
  const SafetensorsHeader header = parse(raw_file(text, 6));
  ASSERT_EQ(header.tensors.size(), 2);
  EXPECT_EQ(header.tensors[0].name, "b");
  EXPECT_EQ(header.tensors[0].dtype, Dtype::bf16);
  EXPECT_EQ(header.tensors[0].shape, (Shape{1, 2}));
  EXPECT_EQ(header.tensors[1].offset, header.nbytes + 4);
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsHeaderTest, ManyTensorsParseFast) {
  std::string text = "{";
  constexpr int kTensors = 90'000;
  for (int i = 0; i < kTensors; ++i) {
    text +=
        fmt::format("{}\"model.layers.{}.mlp.experts.{}.down_proj.weight\":{}", i == 0 ? "" : ",",
                    i / 1000, i % 1000, entry("U8", "[1,1]", fmt::format("[{},{}]", i, i + 1)));
  }
  text += "}";
  const std::string file = raw_file(text, kTensors);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse(file).tensors.size(), kTensors);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  RecordProperty("seconds", std::to_string(seconds.count()));
  EXPECT_LT(seconds.count(), 20.0) << text.size() << " bytes";  // generous: sanitizers
}

TEST(SafetensorsFileTest, FindsAndReads) {
  const TempDir dir;
  const std::string text =
      "{\"a\":" + entry("U8", "[3]", "[0,3]") + ",\"b\":" + entry("I32", "[2]", "[3,11]") + "}";
  write_text(dir / "f.safetensors", length_field(text.size()) + text + std::string("\1\2\3") +
                                        std::string("\4\0\0\0\5\0\0\0", 8));
  const SafetensorsFile file(dir / "f.safetensors");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_THAT(refusal([&] { file.at("c"); }), HasSubstr("tensor c is missing"));
  const TensorBytes a = file.read(file.at("a"), 1, 3);
  EXPECT_EQ(a.size(), 2);
  EXPECT_EQ(a.data()[0], 2);
  // The file does not align b, reading does.
  const TensorBytes b = file.read(file.at("b"));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 4, 0);
  EXPECT_EQ(b.data()[4], 5);
  EXPECT_EQ(file.bytes_read(), 10);
}

TEST(SafetensorsFileTest, NamesLfsPointers) {
  const TempDir dir;
  write_text(dir / "f.safetensors",
             "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n");
  const std::string message = refusal([&] { SafetensorsFile(dir / "f.safetensors"); });
  EXPECT_THAT(message, HasSubstr("f.safetensors: a git-LFS pointer"));
}

TEST(SafetensorsFileTest, RefusesMissingAndEmptyFiles) {
  const TempDir dir;
  EXPECT_THAT(refusal([&] { SafetensorsFile(dir / "none"); }), HasSubstr("cannot open"));
  write_text(dir / "empty", "");
  EXPECT_THAT(refusal([&] { SafetensorsFile(dir / "empty"); }), HasSubstr("0 bytes, expected"));
  EXPECT_THAT(refusal([&] { SafetensorsFile(dir.path()); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace blockptq
