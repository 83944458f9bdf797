// The only door between the graph of a block and arithmetic.
//
// A block asks for linears and names the points (sites) where a quantized model would hold
// integers. How that is done is the business of the implementation behind this interface: in
// floating point here, with fake quantization or in integers elsewhere. Graph code never asks "am I
// quantized?".
//
// Shapes: T tokens, I input features, O output features.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "quant/int_linear.h"

namespace blockptq {

/// A linear's weight in the form that an Exec works with.
struct Weight {
  std::string name;  ///< the checkpoint's name, e.g. "model.layers.3.self_attn.o_proj.weight"
  std::string role;  ///< what it is in any block, e.g. "attention.o_proj"
  at::Tensor value;  ///< [O, I], floating point; undefined where `integers` stand in its place
  std::optional<IntWeight> integers = std::nullopt;

  /// Output channels [begin, end) as a weight that shares memory with this one.
  Weight rows(int64_t begin, int64_t end) const;
};

/// Where in a block an activation or a cache entry passes.
enum class SiteKind {
  linear_input,   ///< in front of one or more linears
  kv_latent,      ///< MLA latent, as read back from the cache
  key_cache,      ///< keys of a head, after norm and rope, as read back from the cache
  value_cache,    ///< values of a head, as read back from the cache
  indexer_query,  ///< DSA indexer query, after rope
  indexer_key,    ///< DSA indexer key, after rope, as read back from the cache
};

/// The name of a cache point in recipes.
std::string_view point_name(SiteKind kind);

/// A site is identified by the (first) linear behind it.
struct Site {
  SiteKind kind;
  std::string_view name;  ///< that weight's name
  std::string_view role;  ///< and its role

  static Site before(const Weight& weight) {
    return {SiteKind::linear_input, weight.name, weight.role};
  }
};

/// An activation in front of linears, in the forms that an Exec works with.
struct Activation {
  at::Tensor value;             ///< [T, I], floating point: what linears read, unless ...
  at::Tensor unquantized = {};  ///< ... they are not quantized and this is there
  std::optional<QActivation> integers = std::nullopt;  ///< ... or their weights are integers
};

class Exec {
 public:
  Exec() = default;
  virtual ~Exec() = default;
  Exec(const Exec&) = delete;
  Exec& operator=(const Exec&) = delete;

  /// x_TI in front of the linears of `site`; pass the result to each of them.
  virtual Activation input(const Site& site, const at::Tensor& x_TI) const = 0;
  /// y_TO = x_TI W_OI^T.
  virtual at::Tensor linear(const Weight& weight, const Activation& x_TI) const = 0;
  /// x as it is read back from the cache or compared at `site`; the last dimension is one quantized
  /// vector.
  virtual at::Tensor point(const Site& site, const at::Tensor& x) const = 0;
};

/// Everything in the floating-point type of the tensors.
class FloatExec final : public Exec {
 public:
  Activation input(const Site& site, const at::Tensor& x_TI) const override;
  at::Tensor linear(const Weight& weight, const Activation& x_TI) const override;
  at::Tensor point(const Site& site, const at::Tensor& x) const override;
};

}  // namespace blockptq
