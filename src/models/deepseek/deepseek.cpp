#include "models/deepseek/deepseek.h"

#include <ATen/ATen.h>

#include <utility>

#include "models/decoder_layout.h"
#include "models/deepseek/config.h"
#include "models/deepseek/tensors.h"
#include "models/piece.h"
#include "nn/attention_mla.h"
#include "nn/norm.h"

namespace blockptq {
namespace deepseek {
namespace {

class DeepSeek final : public Model {
 public:
  explicit DeepSeek(const Config& config) : Model(config.model), config_(config) {}

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
    const auto weight = [&](const char* name) { return piece.weight(prefix + name); };
    const auto vector = [&](const char* name) { return piece.tensor(prefix + name); };
    nn::MlaAttention::Weights weights{
        weight("q_a_proj.weight"),       vector("q_a_layernorm.weight"),
        weight("q_b_proj.weight"),       weight("kv_a_proj_with_mqa.weight"),
        vector("kv_a_layernorm.weight"), weight("kv_b_proj.weight"),
        weight("o_proj.weight")};
    std::optional<nn::Indexer> indexer;
    if (config_.indexer) {
      indexer = nn::Indexer{*config_.indexer,
                            weight("indexer.wq_b.weight"),
                            weight("indexer.wk.weight"),
                            weight("indexer.weights_proj.weight"),
                            vector("indexer.k_norm.weight"),
                            vector("indexer.k_norm.bias")};
    }
    return std::make_unique<nn::MlaAttention>(config_.attention, std::move(weights),
                                              std::move(indexer));
  }

  std::vector<ScalePoint> attention_scale_points(int64_t block) const override {
    const std::string prefix = block_prefix(block) + "self_attn.";
    const nn::MlaSpec& mla = config_.attention;
    const std::string kv_b = prefix + "kv_b_proj.weight";
    std::vector<std::string> query_readers{prefix + "q_b_proj.weight"};
    if (config_.indexer) {
      query_readers.push_back(prefix + "indexer.wq_b.weight");
    }
    // The values are the last rows of every head.
    const at::Tensor values = at::arange(mla.heads * (mla.qk_nope_head_dim + mla.v_head_dim))
                                  .view({mla.heads, -1})
                                  .slice(1, mla.qk_nope_head_dim)
                                  .flatten();
    return {{prefix + "q_a_layernorm.weight", query_readers},
            {prefix + "kv_a_layernorm.weight", {kv_b}, {}, {}, SiteKind::kv_latent},
            {kv_b, {prefix + "o_proj.weight"}, values}};
  }

  FeedForward feed_forward(const Piece& piece, int64_t block) const override {
    const std::string prefix = block_prefix(block);
    FeedForward result;
    result.scale_point.producer = prefix + "post_attention_layernorm.weight";
    result.norm_D = piece.tensor(result.scale_point.producer);
    if (!config_.is_moe(block)) {
      result.mlp = mlp_of(piece, prefix + "mlp.");
      return result;
    }
    result.scale_point.readers.push_back(prefix + "mlp.gate.weight");
    result.router = std::make_unique<nn::GroupLimitedRouter>(
        config_.router, piece.tensor(prefix + "mlp.gate.weight"),
        piece.tensor(prefix + "mlp.gate.e_score_correction_bias"));
    if (config_.shared_experts > 0) {
      result.mlp = mlp_of(piece, prefix + "mlp.shared_experts.");
    }
    return result;
  }

  nn::Mlp expert(const Piece& piece, int64_t block, int64_t index) const override {
    return mlp_of(piece, expert_prefix(block, index));
  }

  at::Tensor mtp_input(const Piece& piece, int64_t block, const at::Tensor& embedded_TD,
                       const at::Tensor& hidden_TD) const override {
    const std::string prefix = block_prefix(block);
    const double eps = spec().rms_norm_eps;
    const at::Tensor joined =
        at::cat({nn::rms_norm(embedded_TD, piece.tensor(prefix + "enorm.weight"), eps),
                 nn::rms_norm(hidden_TD, piece.tensor(prefix + "hnorm.weight"), eps)},
                -1);
    return at::linear(joined, piece.tensor(prefix + "eh_proj.weight"));
  }

 private:
  Config config_;
};

}  // namespace
}  // namespace deepseek

std::unique_ptr<Model> make_deepseek(const JsonView& config) {
  return std::make_unique<deepseek::DeepSeek>(deepseek::parse_config(config));
}

}  // namespace blockptq
