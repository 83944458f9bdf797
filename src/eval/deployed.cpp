#include "eval/deployed.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "exec/fake_quant_exec.h"
#include "exec/integer_exec.h"
#include "models/stored_clip.h"

namespace blockptq {
namespace {

constexpr auto kCachePoints = {"kv_latent", "indexer_query", "indexer_key", "key_cache",
                               "value_cache"};

/// Whether the blocks use the tensor as the weight of a linear.
bool is_linear(const ModelTensor& tensor) {
  const bool in_block = tensor.unit == Unit::attention || tensor.unit == Unit::feed_forward ||
                        tensor.unit == Unit::expert;
  return in_block && tensor.shape.size() == 2 && tensor.role != "router" && !tensor.keep_fp32;
}

/// Weight and activation bits.
using Bits = std::pair<int, int>;

Bits bits_of(const Checkpoint& checkpoint, const ModelTensor& tensor) {
  const StoredTensor& stored = checkpoint.at(tensor.name);
  check(stored.activation_bits.has_value(),
        "{}: input_activations: expected symmetric integers of 4 or 8 bits with a dynamic scale "
        "per token",
        stored.where());
  return {stored.bits == 0 ? kFloatBits : stored.bits,
          *stored.activation_bits == 0 ? kFloatBits : *stored.activation_bits};
}

/// blockptq.json; null where there is none.
Json folder_description(const Checkpoint& checkpoint) {
  const auto path = checkpoint.path() / "blockptq.json";
  return std::filesystem::exists(path) ? parse_json(read_file(path), path.string()) : Json();
}

bool folder_cache_is_int8(const Checkpoint& checkpoint) {
  const Json json = folder_description(checkpoint);
  if (json.is_null()) {
    return true;
  }
  const std::string path = (checkpoint.path() / "blockptq.json").string();
  const std::string cache = JsonView(json, path).at("cache").string();
  check(cache == "c8" || cache == "c16", "{}.cache: expected c8 or c16, found {:?}", path, cache);
  return cache == "c8";
}

/// A rule for the bits that most weights of `role` have, and one for each group of others.
Recipe with_role(Recipe recipe, const std::string& role,
                 const std::map<Bits, std::vector<std::string>>& names_by_bits) {
  const auto rule = [&](const Bits& bits) {
    return Json{{"role", role}, {"weight_bits", bits.first}, {"activation_bits", bits.second}};
  };
  const auto most = std::max_element(
      names_by_bits.begin(), names_by_bits.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  recipe = recipe.with_rule(rule(most->first));
  for (const auto& [bits, names] : names_by_bits) {
    if (bits != most->first) {
      Json exception = rule(bits);
      exception["name"] = names;
      recipe = recipe.with_rule(exception);
    }
  }
  return recipe;
}

void check_integers(const Checkpoint& checkpoint, const std::vector<ModelTensor>& table) {
  for (const ModelTensor& tensor : table) {
    const StoredTensor& stored = checkpoint.at(tensor.name);
    if (stored.activation_bits == 0) {
      continue;
    }
    if (!is_linear(tensor)) {
      log(LogLevel::warning, "{}: computed in floating point, its codes decoded", stored.where());
      continue;
    }
    check(stored.row_codes,
          "{}: integer evaluation wants symmetric weights with one scale per row; --fake_quant "
          "evaluates others",
          stored.where());
  }
}

/// Whether every linear that reads integers can be computed in integers.
bool has_integers(const Checkpoint& checkpoint, const std::vector<ModelTensor>& table) {
  return std::ranges::all_of(table, [&](const ModelTensor& tensor) {
    const StoredTensor& stored = checkpoint.at(tensor.name);
    return !is_linear(tensor) || stored.activation_bits == 0 || stored.row_codes;
  });
}

}  // namespace

bool is_deployed(const Checkpoint& checkpoint) {
  return std::ranges::any_of(
      checkpoint.tensors(), [](const StoredTensor& stored) { return stored.activation_bits != 0; });
}

std::optional<Rotation> folder_rotation(const Checkpoint& checkpoint, const Model& model) {
  const Json json = folder_description(checkpoint);
  if (json.is_null()) {
    return std::nullopt;
  }
  const std::string path = (checkpoint.path() / "blockptq.json").string();
  const Json& recipe = JsonView(json, path).at("run").at("recipe").raw();
  const auto seed = Recipe::parse(recipe, path).transforms().rotate_seed;
  return seed ? std::optional<Rotation>(std::in_place, model.spec().hidden_size, *seed)
              : std::nullopt;
}

Recipe deployed_recipe(const Checkpoint& checkpoint, const Model& model,
                       const DeployedOptions& options) {
  std::map<std::string, std::map<Bits, std::vector<std::string>>> roles;
  for (const ModelTensor& tensor : model.tensors()) {
    if (is_linear(tensor)) {
      roles[tensor.role][bits_of(checkpoint, tensor)].push_back(tensor.name);
    }
  }
  Recipe recipe;
  for (const auto& [role, names_by_bits] : roles) {
    recipe = with_role(std::move(recipe), role, names_by_bits);
  }
  if (options.int8_cache ? *options.int8_cache : folder_cache_is_int8(checkpoint)) {
    const Recipe preset = Recipe::preset("w8a8c8");
    for (const char* point : kCachePoints) {
      recipe = recipe.with_cache(point, preset.cache(point));
    }
  }
  return recipe;
}

Arithmetic deployed_arithmetic(const Checkpoint& checkpoint, const Model& model,
                               const DeployedOptions& options) {
  const std::vector<ModelTensor> table = model.tensors();
  const Recipe recipe = deployed_recipe(checkpoint, model, options);
  QuantExec::Factors factors;
  for (const ModelTensor& tensor : table) {
    if (auto factor = is_linear(tensor) ? stored_clip(checkpoint, tensor) : std::nullopt) {
      factors[tensor.name] = std::move(*factor);
    }
  }
  Arithmetic arithmetic;
  arithmetic.description = {{"deployed", options.fake_quant ? "fake_quant" : "integer"},
                            {"recipe", recipe.json()}};
  if (options.fake_quant && (options.type != at::kFloat || !has_integers(checkpoint, table))) {
    arithmetic.exec = std::make_shared<FakeQuantExec>(recipe, std::move(factors));
    return arithmetic;
  }
  if (!options.fake_quant) {
    check_integers(checkpoint, table);
  }
  arithmetic.exec = std::make_shared<IntegerExec>(recipe, std::move(factors),
                                                  options.fake_quant ? value_linear : int_linear);
  arithmetic.integers = [recipe](const ModelTensor& tensor) {
    return is_linear(tensor) &&
           recipe.linear(tensor.role, tensor.name).activation_bits != kFloatBits;
  };
  return arithmetic;
}

std::string quant_type(const Recipe& recipe, const Model& model) {
  int weight = kFloatBits;
  int activation = kFloatBits;
  int cache = kFloatBits;
  for (const ModelTensor& tensor : model.tensors()) {
    if (is_linear(tensor)) {
      const LinearScheme scheme = recipe.linear(tensor.role, tensor.name);
      weight = std::min(weight, scheme.weight_bits);
      activation = std::min(activation, scheme.activation_bits);
    }
  }
  for (const char* point : kCachePoints) {
    cache = std::min(cache, recipe.cache(point).bits);
  }
  return fmt::format("w{}a{}c{}", weight, activation, cache);
}

}  // namespace blockptq
