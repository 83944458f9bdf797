#include "checkpoint/checkpoint.h"

#include <thread>

#include "checkpoint/index.h"
#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

using kernels::FloatType;
using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::refusal;
using testing_support::TempDir;
using testing_support::TestTensor;
using testing_support::write_shard;
using testing_support::write_text;

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() { write_text(dir_ / "config.json", R"({"model_type":"x"})"); }

  Checkpoint open_with(const std::vector<TestTensor>& tensors) {
    write_shard(dir_ / "model.safetensors", tensors);
    return Checkpoint::open(dir_.path());
  }
  std::string message() {
    return refusal([&] { Checkpoint::open(dir_.path()); });
  }

  static std::vector<float> decode(const Checkpoint& checkpoint, std::string_view name) {
    const StoredTensor& tensor = checkpoint.at(name);
    std::vector<float> out(static_cast<size_t>(tensor.rows() * tensor.row_size()));
    checkpoint.decode(tensor, FloatType::f32, out.data());
    return out;
  }

  TempDir dir_;
};

TEST_F(CheckpointTest, DecodesPlainTensorsOfEveryRank) {
  const Checkpoint checkpoint = open_with({
      make_tensor<float>("scalar", Dtype::f32, {}, {2.5F}),
      make_tensor<uint16_t>("vector", Dtype::bf16, {3}, {0x3f80, 0xc000, 0x0000}),
      make_tensor<uint16_t>("half", Dtype::f16, {1, 2}, {0x3c00, 0xb800}),
      make_tensor<float>("cube", Dtype::f32, {2, 1, 2}, {1, 2, 3, 4}),
      make_tensor<float>("empty", Dtype::f32, {0, 4}, {}),
  });
  EXPECT_THAT(decode(checkpoint, "scalar"), ElementsAre(2.5F));
  EXPECT_THAT(decode(checkpoint, "vector"), ElementsAre(1.0F, -2.0F, 0.0F));
  EXPECT_THAT(decode(checkpoint, "half"), ElementsAre(1.0F, -0.5F));
  EXPECT_THAT(decode(checkpoint, "empty"), ElementsAre());
  EXPECT_EQ(checkpoint.at("vector").rows(), 1);
  EXPECT_EQ(checkpoint.at("vector").row_size(), 3);
  EXPECT_EQ(checkpoint.at("cube").rows(), 2);
  std::vector<float> row(2);
  checkpoint.decode_rows(checkpoint.at("cube"), 1, 2, FloatType::f32, row.data());
  EXPECT_THAT(row, ElementsAre(3, 4));
}

TEST_F(CheckpointTest, IntegersAreOnlyCopied) {
  const Checkpoint checkpoint = open_with({make_tensor<int64_t>("ids", Dtype::i64, {2}, {5, -6})});
  const StoredTensor& ids = checkpoint.at("ids");
  std::vector<int64_t> out(2);
  checkpoint.read_raw(ids.parts[0], 0, 16, out.data());
  EXPECT_THAT(out, ElementsAre(5, -6));
  checkpoint.read_raw(ids.parts[0], 8, 16, out.data());
  EXPECT_EQ(out[0], -6);
  EXPECT_THAT(refusal([&] { checkpoint.decode(ids, FloatType::f32, out.data()); }),
              HasSubstr("model.safetensors: tensor ids: expected F32, BF16 or F16, found I64"));
}

TEST_F(CheckpointTest, GathersRows) {
  const Checkpoint checkpoint =
      open_with({make_tensor<float>("embed", Dtype::f32, {3, 2}, {0, 1, 10, 11, 20, 21})});
  const StoredTensor& embed = checkpoint.at("embed");
  std::vector<float> out(6);
  checkpoint.gather_rows(embed, std::vector<int64_t>{2, 0, 2}, FloatType::f32, out.data());
  EXPECT_THAT(out, ElementsAre(20, 21, 0, 1, 20, 21));
  EXPECT_THAT(refusal([&] {
                checkpoint.gather_rows(embed, std::vector<int64_t>{3}, FloatType::f32, out.data());
              }),
              HasSubstr("tensor embed: expected a row below 3, found 3"));
  EXPECT_THROW(checkpoint.decode_rows(embed, 0, 4, FloatType::f32, out.data()), std::logic_error);
}

TEST_F(CheckpointTest, CountsBytesAndFindsTensors) {
  const Checkpoint checkpoint =
      open_with({make_tensor<float>("a", Dtype::f32, {2, 2}, {1, 2, 3, 4}),
                 make_tensor<uint8_t>("b", Dtype::u8, {3}, {1, 2, 3})});
  EXPECT_EQ(checkpoint.total_bytes(), 19);
  EXPECT_EQ(checkpoint.bytes_read(), 0);
  decode(checkpoint, "a");
  decode(checkpoint, "a");
  EXPECT_EQ(checkpoint.bytes_read(), 32);
  EXPECT_EQ(checkpoint.at("a").nbytes(), 16);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
  EXPECT_THAT(refusal([&] { checkpoint.at("c"); }), HasSubstr("tensor c is missing"));
}

TEST_F(CheckpointTest, TensorsComeInFileOrderAndSurviveAMove) {
  write_shard(dir_ / "1.safetensors", {make_tensor<float>("z", Dtype::f32, {1}, {1}),
                                       make_tensor<float>("b", Dtype::f32, {1}, {2})});
  write_shard(dir_ / "2.safetensors", {make_tensor<float>("a", Dtype::f32, {1}, {3})});
  write_text(dir_ / kIndexName,
             R"({"weight_map":{"a":"2.safetensors","b":"1.safetensors","z":"1.safetensors"}})");
  Checkpoint opened = Checkpoint::open(dir_.path());
  const Checkpoint checkpoint = std::move(opened);
  std::vector<std::string> names;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    names.push_back(tensor.name);
  }
  EXPECT_THAT(names, ElementsAre("z", "b", "a"));
  EXPECT_THAT(decode(checkpoint, "a"), ElementsAre(3));
}

TEST_F(CheckpointTest, PiecesOfALargeTensorAreReleased) {
  constexpr int64_t kRows = 3000;
  constexpr int64_t kCols = 4001;  // 48 MB: several pieces
  std::vector<float> values(kRows * kCols);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i % 8191);
  }
  const Checkpoint checkpoint = open_with({make_tensor("w", Dtype::f32, {kRows, kCols}, values)});
  EXPECT_EQ(decode(checkpoint, "w"), values);
  EXPECT_EQ(checkpoint.bytes_read(), checkpoint.total_bytes());
  std::ifstream maps("/proc/self/smaps");
  bool ours = false;
  for (std::string line; std::getline(maps, line);) {
    ours = ours || line.find(dir_.path().string()) != std::string::npos;
    if (ours && line.starts_with("Rss:")) {
      EXPECT_EQ(std::stoll(line.substr(4)), 0);
      break;
    }
  }
  EXPECT_TRUE(ours);
}

TEST_F(CheckpointTest, ManyThreadsDecode) {
  std::vector<float> values(1 << 18);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i);
  }
  const Checkpoint checkpoint = open_with({make_tensor("w", Dtype::f32, {512, 512}, values)});
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  threads.reserve(equal.size());
  for (int& count : equal) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        checkpoint.prefetch(checkpoint.at("w"));
        count += decode(checkpoint, "w") == values ? 1 : 0;
        checkpoint.release(checkpoint.at("w"));
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(equal, ElementsAre(20, 20, 20, 20));
  EXPECT_EQ(checkpoint.bytes_read(), 80 * checkpoint.total_bytes());
}

TEST_F(CheckpointTest, FingerprintTellsModelsApart) {
  const auto fingerprint = [&](float value) {
    return open_with({make_tensor<float>("w", Dtype::f32, {1}, {value})}).fingerprint();
  };
  const std::string one = fingerprint(1);
  EXPECT_EQ(one.size(), 64);
  EXPECT_EQ(fingerprint(1), one);
  EXPECT_NE(fingerprint(2), one);
  write_text(dir_ / "config.json", R"({"model_type":"y"})");
  EXPECT_NE(fingerprint(1), one);
}

TEST_F(CheckpointTest, RefusesConfigs) {
  const auto with_config = [&](std::string_view text) {
    write_text(dir_ / "config.json", text);
    return message();
  };
  write_shard(dir_ / "model.safetensors", {});
  EXPECT_THAT(with_config("[]"), HasSubstr("config.json: expected an object"));
  EXPECT_THAT(with_config("{"), HasSubstr("config.json: not valid JSON"));
  EXPECT_THAT(with_config("version https://git-lfs.github.com/spec/v1\n"), HasSubstr("git-LFS"));
  EXPECT_THAT(with_config(R"({"quantization_config":7})"),
              HasSubstr("config.json: quantization_config: expected an object, found 7"));
  EXPECT_THAT(
      with_config(R"({"quantization_config":{"quant_method":"gptq"}})"),
      HasSubstr("quantization_config.quant_method: expected one of compressed-tensors, fp8, "
                "found \"gptq\""));
  EXPECT_THAT(with_config(R"({"quantization_config":{}})"),
              HasSubstr("quantization_config: key 'quant_method' is missing"));
  std::filesystem::remove(dir_ / "config.json");
  EXPECT_THAT(message(), HasSubstr("config.json is missing"));
}

TEST_F(CheckpointTest, RefusesQuantizedTensorsThatNothingExplains) {
  const auto alone = [&](const TestTensor& tensor) {
    write_shard(dir_ / "model.safetensors", {tensor});
    return message();
  };
  EXPECT_THAT(
      alone(make_tensor<uint8_t>("a.weight", Dtype::f8_e4m3, {1, 1}, {0})),
      HasSubstr("tensor a.weight: F8_E4M3 values, but config.json has no quantization_con"));
  EXPECT_THAT(alone(make_tensor<uint8_t>("a.weight", Dtype::f8_e5m2, {1, 1}, {0})),
              HasSubstr("tensor a.weight: F8_E5M2 values"));
  for (const char* part : {"weight_scale_inv", "weight_scale", "weight_zero_point"}) {
    EXPECT_THAT(alone(make_tensor<float>(fmt::format("a.{}", part), Dtype::f32, {1, 1}, {1})),
                HasSubstr("a part of a quantized weight, but config.json has no quantization_con"));
  }
}

}  // namespace
}  // namespace blockptq
