// A model whose residual stream is rotated computes the same function, in every family.
#include "models/stream_rotation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "eval/model_pass.h"
#include "eval/test_support.h"
#include "models/ends.h"
#include "models/families.h"

namespace blockptq {
namespace {

constexpr int64_t kTokens = 96;
const std::filesystem::path kProject = BLOCKPTQ_SOURCE_DIR;

TokenWindows first_tokens(const std::filesystem::path& folder) {
  const auto path = folder / "reference/ref_tokens.json";
  const auto tokens = parse_json(read_file(path), path.string()).get<std::vector<int32_t>>();
  TokenWindows windows;
  windows.seq_len = kTokens;
  windows.ids.assign(tokens.begin(), tokens.begin() + kTokens);
  return windows;
}

/// Logits [kTokens, V] of a model from what enters its first block; undefined: its embeddings.
at::Tensor logits(const Subject& subject, const TokenWindows& windows, const at::Tensor& states) {
  PassOptions options;
  options.type = at::kFloat;
  const int64_t blocks = subject.model.spec().blocks;
  ModelPass pass(subject, windows, {.end = blocks, .head = true}, options, states);
  for (int64_t block = 0; block < blocks; ++block) {
    pass.run_block(block, [](const std::string&) {});
  }
  pass.normalize();
  std::vector<at::Tensor> tiles;
  for (int64_t tile = 0; tile < head_tiles(subject.model, Unit::head, at::kFloat); ++tile) {
    tiles.push_back(at::linear(pass.states()[0], pass.next_head_tile().only()));
  }
  return at::cat(tiles, -1);
}

class RotatedStream : public testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path folder() const {
    const bool shipped = GetParam() == "deepseek";
    return kProject / (shipped ? "models/tiny-v32-fp8" : "tests/fixtures/families/" + GetParam());
  }
};

TEST_P(RotatedStream, KeepsTheLogits) {
  const Checkpoint checkpoint = Checkpoint::open(folder());
  const auto source = open_model(checkpoint);
  const TokenWindows windows = first_tokens(folder());
  const at::Tensor expected =
      logits({checkpoint, *source, float_arithmetic()}, windows, at::Tensor());

  const auto model = open_model(checkpoint);
  model->untie_head();
  const StreamRotation rotation(checkpoint, *model, 5);
  Arithmetic arithmetic = float_arithmetic();
  arithmetic.transform = rotation.transform();
  const std::vector<ModelTensor> table = model->tensors();
  const ModelTensor& embedding = tensor_of(table, Unit::embedding, "embedding");
  const at::Tensor embedded = embed(checkpoint, embedding, windows.ids, at::kFloat);
  const at::Tensor states = rotation.apply(embedding.name, embedded);
  EXPECT_GT(max_difference(states, embedded), 0.1 * embedded.abs().max().item<double>());
  const at::Tensor found = logits({checkpoint, *model, arithmetic}, windows, states.unsqueeze(0));
  EXPECT_LT((found - expected).norm().item<double>(), 1e-5 * expected.norm().item<double>());
}

/// A tensor that reads or writes the stream by the size of its axes, but is not said to, would be
/// left behind.
TEST_P(RotatedStream, LeavesOutNothingOfItsSize) {
  const Checkpoint checkpoint = Checkpoint::open(folder());
  const auto model = open_model(checkpoint);
  model->untie_head();
  const StreamRotation rotation(checkpoint, *model, 5);
  const int64_t hidden = model->spec().hidden_size;
  for (const ModelTensor& tensor : model->tensors()) {
    const bool inside = tensor.role == "indexer.wq_b";  // as many outputs, by chance
    const bool has_axis = std::ranges::find(tensor.shape, hidden) != tensor.shape.end();
    EXPECT_EQ(rotation.changes(tensor.name), has_axis && !inside) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RotatedStream,
                         testing::Values("deepseek", "llama", "qwen3", "qwen3_moe"),
                         [](const auto& family) { return family.param; });

TEST(StreamRotation, EmptiesTheNormsIntoWhatReadsThem) {
  const Checkpoint checkpoint = Checkpoint::open(kProject / "models/tiny-v32-fp8");
  const auto model = open_model(checkpoint);
  const StreamRotation rotation(checkpoint, *model, 5);
  const std::string norm = "model.layers.6.hnorm.weight";
  const at::Tensor chain_D = rotation.norm(norm) * rotation.norm("model.norm.weight");
  EXPECT_TRUE(at::equal(rotation.apply(norm, rotation.norm(norm)), at::ones_like(chain_D)));
  // Columns of the embedding's half, then of the hidden states' half, behind two norms.
  const int64_t hidden = model->spec().hidden_size;
  at::manual_seed(1);
  const at::Tensor w = at::randn({hidden, 2 * hidden});
  const at::Tensor found = rotation.apply("model.layers.6.eh_proj.weight", w, 0.5);
  const at::Tensor e = at::randn({3, hidden});
  const at::Tensor h = at::randn({3, hidden});
  const at::Tensor expected = rotation.rotate(at::linear(
      at::cat({e * rotation.norm("model.layers.6.enorm.weight"), h * chain_D * 0.5}, 1), w));
  const at::Tensor result = at::linear(at::cat({rotation.rotate(e), rotation.rotate(h)}, 1), found);
  EXPECT_LT((result - expected).norm().item<double>(), 1e-5 * expected.norm().item<double>());
}

}  // namespace
}  // namespace blockptq
