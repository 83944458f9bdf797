#include "models/gqa/gqa.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.h"
#include "models/decoder_layout.h"
#include "models/gqa/config.h"
#include "models/gqa/tensors.h"
#include "models/piece.h"
#include "nn/attention_gqa.h"

namespace blockptq {
namespace gqa {
namespace {

class GqaModel final : public Model {
 public:
  explicit GqaModel(Config config) : Model(config.model), config_(std::move(config)) {}

  std::vector<ModelTensor> tensors() const override {
    Config config = config_;
    config.model = spec();
    return tensor_table(config);
  }

  int64_t experts(int64_t block) const override {
    return config_.is_moe(block) ? config_.routed_experts : 0;
  }

  at::Tensor attention_norm(const Piece& piece, int64_t block) const override {
    return piece.tensor(block_prefix(block) + "input_layernorm.weight");
  }

  std::unique_ptr<nn::Attention> attention(const Piece& piece, int64_t block) const override {
    const std::string prefix = block_prefix(block) + "self_attn.";
    nn::GqaAttention::Weights weights;
    weights.q_proj = piece.weight(prefix + "q_proj.weight");
    weights.k_proj = piece.weight(prefix + "k_proj.weight");
    weights.v_proj = piece.weight(prefix + "v_proj.weight");
    weights.o_proj = piece.weight(prefix + "o_proj.weight");
    if (config_.qk_norms) {
      weights.q_norm = piece.tensor(prefix + "q_norm.weight");
      weights.k_norm = piece.tensor(prefix + "k_norm.weight");
    }
    return std::make_unique<nn::GqaAttention>(config_.attention, std::move(weights));
  }

  std::vector<ScalePoint> attention_scale_points(int64_t block) const override {
    const std::string prefix = block_prefix(block) + "self_attn.";
    const nn::GqaSpec& spec = config_.attention;
    // A head of values is read by as many heads of the output projection as share it.
    const at::Tensor columns = at::arange(spec.kv_heads * spec.head_dim)
                                   .view({spec.kv_heads, 1, spec.head_dim})
                                   .expand({-1, spec.heads / spec.kv_heads, -1})
                                   .flatten();
    return {{block_prefix(block) + "input_layernorm.weight",
             {prefix + "q_proj.weight", prefix + "k_proj.weight", prefix + "v_proj.weight"}},
            {prefix + "v_proj.weight", {prefix + "o_proj.weight"}, {}, columns}};
  }

  FeedForward feed_forward(const Piece& piece, int64_t block) const override {
    const std::string prefix = block_prefix(block);
    FeedForward result;
    result.scale_point.producer = prefix + "post_attention_layernorm.weight";
    result.norm_D = piece.tensor(result.scale_point.producer);
    if (config_.is_moe(block)) {
      result.scale_point.readers.push_back(prefix + "mlp.gate.weight");
      result.router = std::make_unique<nn::SoftmaxRouter>(config_.router,
                                                          piece.tensor(prefix + "mlp.gate.weight"));
    } else {
      result.mlp = mlp_of(piece, prefix + "mlp.");
    }
    return result;
  }

  nn::Mlp expert(const Piece& piece, int64_t block, int64_t index) const override {
    return mlp_of(piece, expert_prefix(block, index));
  }

 private:
  Config config_;
};

}  // namespace
}  // namespace gqa

std::unique_ptr<Model> make_llama(const JsonView& config) {
  return std::make_unique<gqa::GqaModel>(gqa::parse_llama(config));
}

std::unique_ptr<Model> make_qwen3(const JsonView& config) {
  return std::make_unique<gqa::GqaModel>(gqa::parse_qwen3(config));
}

std::unique_ptr<Model> make_qwen3_moe(const JsonView& config) {
  return std::make_unique<gqa::GqaModel>(gqa::parse_qwen3_moe(config));
}

}  // namespace blockptq
