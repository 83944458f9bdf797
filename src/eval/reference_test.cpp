// The forward pass against tensors of the reference implementation (transformers, fp32), see
// models/README.md and tests/fixtures/families/README.md.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/test_models.h"
#include "eval/evaluate.h"
#include "eval/test_support.h"
#include "models/ends.h"
#include "models/families.h"
#include "models/piece.h"
#include "nn/attention_mla.h"
#include "nn/norm.h"

namespace blockptq {
namespace {

struct Source {
  std::string name;
  std::filesystem::path folder;
  std::vector<int64_t> lengths{512, 1024, 2048};  ///< sequences with reference losses
};

void PrintTo(const Source& source, std::ostream* stream) {
  *stream << source.name;
}

const std::filesystem::path kProject = BLOCKPTQ_SOURCE_DIR;

/// A model of the set that may be absent.
Source outside(const std::string& name, const std::string& folder) {
  return {name, test_models() / "models" / folder};
}

std::vector<Source> deepseek_sources() {
  return {{"tiny_v32_fp8", kProject / "models/tiny-v32-fp8"},
          outside("tiny_v32_bf16", "tiny-v32-bf16")};
}

std::vector<Source> sources() {
  std::vector<Source> all = deepseek_sources();
  all.push_back(outside("tiny_qwen3moe_bf16", "tiny-qwen3moe-bf16"));
  for (const char* family : {"llama", "qwen3", "qwen3_moe"}) {
    all.push_back({family, kProject / "tests/fixtures/families" / family, {96}});
  }
  return all;
}

class Reference : public testing::TestWithParam<Source> {
 protected:
  void SetUp() override {
    folder_ = GetParam().folder;
    if (!std::filesystem::exists(folder_)) {
      GTEST_SKIP() << GetParam().name << ": not found (BLOCKPTQ_TEST_MODELS)";
    }
    checkpoint_ = std::make_unique<Checkpoint>(Checkpoint::open(folder_));
    model_ = open_model(*checkpoint_);
    const auto path = folder_ / "reference/ref_tokens.json";
    tokens_ = parse_json(read_file(path), path.string()).get<std::vector<int32_t>>();
  }

  at::Tensor reference(const std::string& file, const std::string& name) const {
    return load_tensor(folder_ / "reference" / (file + ".safetensors"), name);
  }

  TokenWindows first_window(int64_t length) const {
    TokenWindows windows;
    windows.seq_len = length;
    windows.ids.assign(tokens_.begin(), tokens_.begin() + length);
    return windows;
  }

  EvalResult run(const TokenWindows& windows, EvalOptions options) const {
    options.type = at::kFloat;
    NoProgress progress;
    return evaluate({*checkpoint_, *model_, float_arithmetic()}, nullptr, windows, options,
                    progress);
  }

  at::Tensor load_weight(const ModelTensor& spec) const {
    PieceLoader loader(*checkpoint_, at::kFloat, at::kCPU);
    return loader.load({{{spec}}}).only();
  }

  std::filesystem::path folder_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Model> model_;
  std::vector<int32_t> tokens_;
};

class DeepSeekReference : public Reference {};

TEST_P(Reference, HiddenStatesOfEveryBlock) {
  EvalOptions options;
  int64_t blocks = 0;
  options.on_block = [&](int64_t block, const at::Tensor& states_CLD) {
    const at::Tensor expected = reference("ref_hidden", fmt::format("layer_{}_out", block));
    const at::Tensor found = states_CLD[0].slice(0, 0, expected.size(0));
    EXPECT_LE(max_difference(found, expected), 2e-3) << "block " << block;
    ++blocks;
  };
  run(first_window(GetParam().lengths.front()), options);
  EXPECT_EQ(blocks, model_->spec().blocks);
}

TEST_P(Reference, Logits) {
  at::Tensor final_states;
  EvalOptions options;
  options.on_block = [&](int64_t /*block*/, const at::Tensor& states) { final_states = states; };
  const int64_t length = GetParam().lengths.front();
  run(first_window(length), options);  // leaves the normalised states
  const auto table = model_->tensors();
  const at::Tensor head = load_weight(head_weight(table, Unit::head));
  const at::Tensor expected = reference("ref_logits", fmt::format("logits_seq{}_first", length));
  const at::Tensor found = at::linear(final_states[0].slice(0, 0, expected.size(0)), head);
  EXPECT_LE(max_difference(found, expected), 2e-3);
}

TEST_P(Reference, Losses) {
  for (const int64_t length : GetParam().lengths) {
    const EvalResult result = run(first_window(length), {});
    const at::Tensor expected = reference("ref_logits", fmt::format("nll_seq{}", length));
    EXPECT_LE(mean_difference(result.losses_CL[0], expected), 1e-4) << length << " tokens";
  }
}

TEST_P(DeepSeekReference, KeysThatTheIndexerSelects) {
  constexpr int64_t kTokens = 1024;
  const FloatExec exec;
  const auto table = model_->tensors();
  const auto pieces = block_pieces(table, 0, model_->spec().blocks);
  PieceLoader loader(*checkpoint_, at::kFloat, at::kCPU);
  at::Tensor states = embed(*checkpoint_, tensor_of(table, Unit::embedding, "embedding"),
                            first_window(kTokens).ids, at::kFloat);
  const auto check_block = [&](int64_t block) {
    const auto spec = std::find_if(pieces.begin(), pieces.end(), [&](const PieceSpec& piece) {
      const ModelTensor& first = piece.tensors.front().spec;
      return first.block == block && first.unit == Unit::attention;
    });
    const Piece piece = loader.load(*spec);
    const auto attention = model_->attention(piece, block);
    const auto& mla = dynamic_cast<const nn::MlaAttention&>(*attention);
    const at::Tensor x =
        nn::rms_norm(states, model_->attention_norm(piece, block), model_->spec().rms_norm_eps);
    const at::Tensor selected = mla.selected_keys(exec, x, {})[kTokens - 1].nonzero().flatten();
    const at::Tensor expected =
        reference("ref_indexer_topk", fmt::format("topk_layer_{}_seq1024_pos1023", block));
    EXPECT_EQ(selected.numel(), expected.numel());
    EXPECT_LE(missing_from(expected, selected), 1) << "block " << block;
  };
  check_block(0);
  EvalOptions options;
  options.on_block = [&](int64_t block, const at::Tensor& states_CLD) {
    states = states_CLD[0].clone();
    if (block + 1 < model_->spec().blocks) {
      check_block(block + 1);
    }
  };
  run(first_window(kTokens), options);
}

TEST_P(DeepSeekReference, MtpLosses) {
  TokenWindows windows = first_window(513);
  const at::Tensor tokens = reference("ref_mtp", "tokens");
  std::copy_n(tokens.const_data_ptr<int32_t>(), tokens.numel(), windows.ids.begin());
  EvalOptions options;
  options.mtp = true;
  const EvalResult result = run(windows, options);
  EXPECT_LE(mean_difference(result.mtp_losses_CL[0], reference("ref_mtp", "mtp_nll")), 1e-4);
}

/// What a run computes must not depend on where it is cut, nor on the size of its tiles.
TEST_P(Reference, SameLossesWithLittleMemory) {
  const int64_t length = GetParam().lengths.back() / 2;
  const TokenWindows windows = first_window(length);
  const EvalPlan plan =
      plan_evaluation({*checkpoint_, *model_, float_arithmetic()}, nullptr, 1, length, {});
  EvalOptions options;
  options.max_memory = plan.peak_bytes() - plan.temporary_bytes + (int64_t{64} << 20);
  const EvalResult small = run(windows, options);
  EXPECT_LE(mean_difference(small.losses_CL[0], run(windows, {}).losses_CL[0]), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Models, Reference, testing::ValuesIn(sources()),
                         [](const auto& source) { return source.param.name; });
INSTANTIATE_TEST_SUITE_P(Models, DeepSeekReference, testing::ValuesIn(deepseek_sources()),
                         [](const auto& source) { return source.param.name; });

}  // namespace
}  // namespace blockptq
