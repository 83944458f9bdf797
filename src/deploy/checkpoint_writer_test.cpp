#include "deploy/checkpoint_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/log.h"
#include "checkpoint/index.h"
#include "checkpoint/test_support.h"
#include "deploy/unit_source.h"
#include "models/families.h"
#include "quant/grid.h"
#include "run/parameters.h"
#include "run/tensor_file.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;
using testing_support::TempDir;
using testing_support::write_text;

constexpr std::string_view kExpert = "model.layers.3.mlp.experts.5.up_proj.weight";

std::string file_bytes(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::map<std::string, std::string> folder_bytes(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files[entry.path().filename().string()] = file_bytes(entry.path());
  }
  return files;
}

class CheckpointWriterTest : public testing::Test {
 protected:
  OutputPlan plan(const std::string& format = "compressed-tensors",
                  int64_t max_shard_bytes = 1 << 20) const {
    return plan_output(source_, *model_, recipe_, output_format(format), {}, max_shard_bytes);
  }
  CheckpointWriter writer(const OutputPlan& plan, std::string_view folder) const {
    return {source_, plan, recipe_, dir_ / folder, {}};
  }
  /// The parts in the order of the shards.
  static std::vector<std::string> parts(const OutputPlan& plan) {
    std::vector<std::string> names;
    for (const PlannedShard& shard : plan.shards) {
      if (names.empty() || names.back() != shard.part) {
        names.push_back(shard.part);
      }
    }
    return names;
  }
  std::shared_ptr<WeightSource> nearest() const { return std::make_shared<NearestSource>(source_); }
  void write_all(const OutputPlan& plan, std::string_view folder) const {
    CheckpointWriter writer(source_, plan, recipe_, dir_ / folder, {});
    for (const std::string& part : parts(plan)) {
      writer.write(part, nearest());
    }
    writer.finish();
  }

  TempDir dir_;
  Checkpoint source_ = Checkpoint::open(BLOCKPTQ_SOURCE_DIR "/models/tiny-v32-fp8");
  std::unique_ptr<Model> model_ = open_model(source_);
  Recipe recipe_ = Recipe::preset("w4a8c8");
};

TEST_F(CheckpointWriterTest, PlanKeepsPartsApartAndShardsSmall) {
  const OutputPlan found = plan();
  EXPECT_THAT(parts(found),
              testing::ElementsAre("embedding", "block 0", "block 1", "block 2", "block 3",
                                   "block 4", "block 5", "head", "block 6"));
  size_t next = 0;
  for (const PlannedShard& shard : found.shards) {
    EXPECT_EQ(shard.begin, next);
    next = shard.end;
    EXPECT_TRUE(shard.nbytes <= (1 << 20) + (64 << 10) || shard.end - shard.begin == 1);
  }
  EXPECT_EQ(next, found.tensors.size());
  std::set<std::string> sources;
  for (const PlannedTensor& tensor : found.tensors) {
    sources.insert(tensor.tensor.name);
  }
  for (const StoredTensor& tensor : source_.tensors()) {
    EXPECT_TRUE(sources.contains(tensor.name)) << tensor.name;
  }
}

TEST_F(CheckpointWriterTest, WritesTheCodesOfTheGrid) {
  at::Tensor w_OI = at::empty(source_.at(kExpert).shape, at::kFloat);
  source_.decode(source_.at(kExpert), kernels::FloatType::f32, w_OI.mutable_data_ptr());
  const QTensor expected = quantize_weight(w_OI, 4, weight_scales(w_OI, 4));
  for (const std::string format : {"compressed-tensors", "ascend"}) {
    write_all(plan(format), format);
    const Checkpoint written = Checkpoint::open(dir_ / format);
    const auto model = open_model(written);
    const StoredTensor& stored = written.at(kExpert);
    ASSERT_TRUE(stored.row_codes) << format;
    at::Tensor codes_OI = at::empty(w_OI.sizes(), at::kChar);
    at::Tensor scales_O = at::empty({w_OI.size(0)}, at::kFloat);
    written.decode_codes(stored, 0, stored.rows(), codes_OI.mutable_data_ptr<int8_t>(),
                         scales_O.mutable_data_ptr<float>());
    EXPECT_TRUE(at::equal(codes_OI, expected.codes_OI)) << format;
    EXPECT_TRUE(at::equal(scales_O, expected.scales_O)) << format;
  }
}

TEST_F(CheckpointWriterTest, ContinuesBehindTheLastFinishedPart) {
  const OutputPlan whole = plan();
  write_all(whole, "undisturbed");
  {
    CheckpointWriter first(source_, whole, recipe_, dir_ / "cut", {});
    first.write("embedding", nearest());
    first.write("block 0", nearest());
  }
  EXPECT_FALSE(std::filesystem::exists(dir_ / "cut" / std::string(kIndexName)));
  // What a killed process leaves: a shard without its line in the journal, half a file.
  write_text(dir_ / "cut" / whole.shards.back().name, "half");
  write_text(dir_ / "cut" / (whole.shards.back().name + ".tmp-1"), "half");
  CheckpointWriter second(source_, whole, recipe_, dir_ / "cut", {});
  EXPECT_TRUE(second.has("block 0"));
  EXPECT_FALSE(second.has("block 1"));
  for (const std::string& part : parts(whole)) {
    second.write(part, nearest());
  }
  second.finish();
  EXPECT_EQ(folder_bytes(dir_ / "cut"), folder_bytes(dir_ / "undisturbed"));
  EXPECT_LT(second.bytes_written(), whole.file_bytes);
}

TEST_F(CheckpointWriterTest, TakesWhatTheUnitsOfARunHold) {
  const OutputPlan whole = plan();
  const std::string norm = "model.layers.3.input_layernorm.weight";
  std::map<std::string, QTensor> quantized;
  NamedTensors unit;
  for (const PlannedTensor& tensor : whole.tensors) {
    if (tensor.tensor.quantized() && tensor.tensor.block == 3) {
      at::Tensor w_OI = at::empty(tensor.source->shape, at::kFloat);
      source_.decode(*tensor.source, kernels::FloatType::f32, w_OI.mutable_data_ptr());
      const int bits = tensor.tensor.weight_bits;
      quantized[tensor.tensor.name] =
          quantize_weight(w_OI, bits, weight_scales(w_OI, bits) * 0.875);
      keep_learned(tensor.tensor.name, w_OI, quantized[tensor.tensor.name],
                   /*always_codes=*/true, unit);
    }
  }
  const QTensor expected = quantized.at(std::string(kExpert));
  const at::Tensor halved = at::full({256}, 0.5F);
  unit[norm] = halved;
  write_tensors(dir_ / "unit.safetensors", unit);
  const std::shared_ptr<WeightSource> units = std::make_shared<UnitSource>(
      source_, std::vector<std::filesystem::path>{dir_ / "unit.safetensors"});
  CheckpointWriter writer(source_, whole, recipe_, dir_ / "out", {});
  for (const std::string& part : parts(whole)) {
    writer.write(part, part == "block 3" ? units : nearest());
  }
  writer.finish({{"transformed", {norm}}});
  const Checkpoint written = Checkpoint::open(dir_ / "out");
  at::Tensor codes_OI = at::empty(expected.codes_OI.sizes(), at::kChar);
  at::Tensor scales_O = at::empty({expected.codes_OI.size(0)}, at::kFloat);
  written.decode_codes(written.at(kExpert), 0, codes_OI.size(0),
                       codes_OI.mutable_data_ptr<int8_t>(), scales_O.mutable_data_ptr<float>());
  EXPECT_TRUE(at::equal(codes_OI, expected.codes_OI));
  EXPECT_TRUE(at::equal(scales_O, expected.scales_O));
  at::Tensor found = at::empty({256}, at::kFloat);
  written.decode(written.at(norm), kernels::FloatType::f32, found.mutable_data_ptr());
  EXPECT_TRUE(at::equal(found, halved));
  const Json description = parse_json(file_bytes(dir_ / "out" / "blockptq.json"), "blockptq.json");
  EXPECT_EQ(description["transformed"], Json::array({norm}));
}

TEST_F(CheckpointWriterTest, RefusesAnotherRunByItsFirstDifference) {
  const OutputPlan whole = plan();
  { writer(whole, "out").write("embedding", nearest()); }
  const OutputPlan other = plan("ascend");
  EXPECT_THAT(refusal([&] { writer(other, "out"); }),
              testing::AllOf(HasSubstr("format"), HasSubstr("--restart")));
}

/// Rounds, then shifts one weight's codes: what a broken encoder or a broken disk would do.
class ShiftedSource final : public WeightSource {
 public:
  using WeightSource::WeightSource;
  void codes(const PlannedTensor& tensor, const TakeRows& take) override {
    at::Tensor w_OI = at::empty(tensor.source->shape, at::kFloat);
    WeightSource::values(tensor, 0, w_OI.size(0), w_OI.mutable_data_ptr<float>());
    const int bits = tensor.tensor.weight_bits;
    const QTensor q = quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
    const at::Tensor codes_OI = tensor.tensor.name == kExpert ? q.codes_OI.roll(1, 1) : q.codes_OI;
    take({codes_OI.const_data_ptr<int8_t>(), q.scales_O.const_data_ptr<float>(), codes_OI.size(0),
          codes_OI.size(1)});
  }
};

TEST_F(CheckpointWriterTest, VerificationNamesAWeightThatIsNotItsSource) {
  const OutputPlan whole = plan();
  const auto write_block = [&](bool verify) {
    WriterOptions options;
    options.verify = verify;
    options.restart = true;
    CheckpointWriter writer(source_, whole, recipe_, dir_ / "out", options);
    writer.write("block 3", std::make_shared<ShiftedSource>(source_));
    writer.flush();
  };
  EXPECT_THAT(refusal([&] { write_block(true); }),
              testing::AllOf(HasSubstr(std::string(kExpert)), HasSubstr("relative error")));
  write_block(false);
}

}  // namespace
}  // namespace blockptq
