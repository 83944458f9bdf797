// What is quantized, to how many bits, and by which algorithm: decided per linear by patterns on
// its role and name, and per cache point by its kind (docs/recipes.md).
//
//   {"linears": [{"role": "expert.*", "name": "model.layers.3.*", "weight_bits": 4,
//                 "activation_bits": 8, "algorithm": {"name": "gptq", ...},
//                 "refine": {"name": "learned_round", ...}}, ...],
//    "cache": {"kv_latent": {"bits": 8, "group": 128}, "indexer_query": {"bits": 8, "hadamard":
//    true}, ...},
//    "transforms": {"smooth": {"where": "all"}, "rotate": {"seed": 0}}}
//
// "role" and "name" are patterns, or lists of them, with * for any text; a rule without them
// matches everything. Later rules win, key by key.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace blockptq {

constexpr int kFloatBits = 16;  ///< of what stays in floating point

/// How one linear is quantized.
struct LinearScheme {
  int weight_bits = kFloatBits;      ///< 2..8, or 16
  int activation_bits = kFloatBits;  ///< of the input: 2..8, or 16
  Json algorithm;                    ///< {"name": ..., options}; null: the command's default
  Json refine;                       ///< the same, of what improves its codes on tokens
};

/// How a cache point is quantized: per token, and per head where there are heads.
struct CacheScheme {
  int bits = kFloatBits;
  int64_t group = 0;      ///< features that share a scale; 0: all
  bool hadamard = false;  ///< rotated first by the normalised Hadamard matrix

  bool operator==(const CacheScheme&) const = default;
};

/// Which features are scaled: none, those between up and down where both become integers, so that
/// nothing else changes, or all that can be.
enum class Smoothing { none, hidden, all };

/// What is folded into the weights before they are rounded.
struct Transforms {
  Smoothing smooth = Smoothing::none;
  std::optional<uint64_t> rotate_seed;  ///< of a rotation of the residual stream; nothing: none
};

class Recipe {
 public:
  /// Nothing is quantized.
  Recipe();
  /// Error naming the key that is unknown or wrong.
  static Recipe parse(const Json& json, const std::string& origin);
  /// A preset by its name (w4a8c8, ...), or else the file of that path.
  static Recipe load(const std::string& preset_or_file);
  /// The preset of that name; Error listing the presets.
  static Recipe preset(std::string_view name);

  LinearScheme linear(std::string_view role, std::string_view name) const;
  /// Whether its weight becomes integers.
  bool quantizes(std::string_view role, std::string_view name) const;
  /// Its rules (as in "linears") that match none of these linears, each a role and a name.
  std::vector<Json> unused_rules(
      const std::vector<std::pair<std::string, std::string>>& linears) const;
  /// `point`: kv_latent, indexer_query, indexer_key, key_cache or value_cache.
  CacheScheme cache(std::string_view point) const;

  const Transforms& transforms() const { return transforms_; }

  /// This recipe with another rule on top (as in "linears").
  Recipe with_rule(const Json& rule) const;
  Recipe with_cache(std::string_view point, const CacheScheme& scheme) const;
  /// Every quantized weight, or every quantized input of a linear, at `bits`.
  Recipe with_weight_bits(int bits) const;
  Recipe with_activation_bits(int bits) const;
  /// Without any quantized cache point.
  Recipe with_float_cache() const;
  Recipe without_transforms() const;
  Recipe without_rotation() const;

  const Json& json() const { return json_; }

 private:
  Recipe with_setting(const char* key, int bits) const;

  struct Rule {
    std::vector<std::string> roles;
    std::vector<std::string> names;
    Json settings;

    bool matches(std::string_view role, std::string_view name) const;
  };

  Json json_;
  std::vector<Rule> rules_;
  std::map<std::string, CacheScheme, std::less<>> cache_;
  Transforms transforms_;
};

/// Whether `text` matches `pattern`, in which * stands for any text.
bool matches_pattern(std::string_view pattern, std::string_view text);

}  // namespace blockptq
