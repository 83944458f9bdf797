// What the program knows about one model: its sizes, the table of its tensors, and the modules of
// its blocks.
//
// A family (a folder below) turns config.json into a Model. Everything that streams blocks works on
// this interface and on the table, so that a new family touches its own folder and one row of
// families.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/attention.h"
#include "nn/mlp.h"
#include "nn/router.h"

namespace blockptq {

class Piece;

/// The part of a model that is loaded, used and dropped together.
enum class Unit {
  embedding,
  attention,     ///< a block's attention and the norm in front of it
  feed_forward,  ///< a block's dense MLP, or router and shared experts, and the norm in front of
                 ///< them
  expert,        ///< one routed expert
  head,          ///< final norm and output head
  mtp_input,     ///< what feeds an MTP layer: its embedding, norms and projection
  mtp_head,      ///< the norm and output head of an MTP layer
};

/// One tensor of the model.
struct ModelTensor {
  std::string name;            ///< e.g. "model.layers.3.mlp.experts.7.up_proj.weight"
  std::string role;            ///< e.g. "expert.up_proj": the same in every block and expert
  std::vector<int64_t> shape;  ///< logical (as if it were stored in floating point)
  Unit unit = Unit::embedding;
  int64_t block = -1;  ///< -1 outside the blocks; MTP layers count after the last block
  int64_t expert = -1;
  bool keep_fp32 = false;  ///< used in fp32 whatever the compute type
  /// The norms through which its columns read the residual stream, side by side, hidden_size
  /// columns behind each; kNoNorm: rows of the stream as they are (an embedding). Of a norm: that
  /// in front of it, where it reads what another one has normalised.
  std::vector<std::string> reads = {};
  bool writes = false;         ///< its rows are features of the residual stream
  std::string stored_as = {};  ///< the checkpoint's tensor, where that is another one's

  /// The name of the checkpoint's tensor.
  const std::string& source() const { return stored_as.empty() ? name : stored_as; }
};

/// In the place of the name of a norm (ModelTensor::reads).
constexpr const char* kNoNorm = "";

/// What the output head is.
enum class Head {
  own,     ///< a tensor of its own
  tied,    ///< the embedding
  untied,  ///< a tensor of its own with the values of the embedding
};

struct ModelSpec {
  std::string model_type;
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t blocks = 0;      ///< without MTP layers
  int64_t mtp_layers = 0;  ///< as far as the checkpoint carries them
  Head head = Head::own;
  double rms_norm_eps = 1e-6;
  double expert_share = 1;  ///< of the tokens that a routed expert sees on average
};

/// A place where features can be scaled without changing the function of a block: what makes
/// feature f is divided by a factor, what reads it is multiplied.
struct ScalePoint {
  std::string producer;              ///< the weight of a norm [F], or of a linear [O, I] ...
  std::vector<std::string> readers;  ///< linears
  at::Tensor rows_F = {};            ///< int64: its row that makes feature f; undefined: row f
  at::Tensor columns_I = {};  ///< int64: the feature that column i of a reader sees; undefined: i
  SiteKind site = SiteKind::linear_input;  ///< what quantizes the features
};

/// The feed-forward half of a block without its routed experts.
struct FeedForward {
  ScalePoint scale_point;              ///< the norm, and what reads it beside MLPs
  at::Tensor norm_D;                   ///< fp32
  std::optional<nn::Mlp> mlp;          ///< the dense MLP, or the shared experts
  std::unique_ptr<nn::Router> router;  ///< null in a dense block
};

class Model {
 public:
  explicit Model(ModelSpec spec) : spec_(std::move(spec)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelSpec& spec() const { return spec_; }
  /// Forgets MTP layers that config.json declares and the checkpoint lacks.
  void drop_mtp() { spec_.mtp_layers = 0; }
  /// Makes an output head that is the embedding a tensor of its own, which may become another one.
  void untie_head() { spec_.head = spec_.head == Head::tied ? Head::untied : spec_.head; }

  /// Every tensor, in the order of use: embedding, blocks (attention, feed forward, experts), head,
  /// MTP layers.
  virtual std::vector<ModelTensor> tensors() const = 0;
  /// Routed experts of a block; 0 in a dense block.
  virtual int64_t experts(int64_t block) const = 0;

  virtual at::Tensor attention_norm(const Piece& attention, int64_t block) const = 0;
  virtual std::unique_ptr<nn::Attention> attention(const Piece& attention, int64_t block) const = 0;
  /// Inside the attention of a block and the norm in front of it. None unless overridden.
  virtual std::vector<ScalePoint> attention_scale_points(int64_t block) const;
  virtual FeedForward feed_forward(const Piece& feed_forward, int64_t block) const = 0;
  virtual nn::Mlp expert(const Piece& expert, int64_t block, int64_t index) const = 0;
  /// What enters MTP layer `block`: the embeddings of the next tokens [T, D] joined with the main
  /// model's final hidden states [T, D]. BPTQ_ASSERT in a family without MTP layers.
  virtual at::Tensor mtp_input(const Piece& mtp_input, int64_t block, const at::Tensor& embedded_TD,
                               const at::Tensor& hidden_TD) const;

 private:
  ModelSpec spec_;
};

}  // namespace blockptq
