#include "cli/quant_options.h"

#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace blockptq::cli {
namespace {

/// `point` at `bits`; out of the cache of integers at 16.
Recipe with_point_bits(const Recipe& recipe, std::string_view point, int bits) {
  CacheScheme scheme = recipe.cache(point);
  if (scheme.bits == kFloatBits) {
    return recipe;  // under --cls bf16 there is nothing to set
  }
  scheme.bits = bits;
  return recipe.with_cache(point, scheme);
}

}  // namespace

Recipe load_recipe(const std::string& preset_or_file, const Model& model) {
  Recipe recipe = Recipe::load(preset_or_file);
  if (std::filesystem::exists(preset_or_file)) {
    std::vector<std::pair<std::string, std::string>> linears;
    for (const ModelTensor& tensor : model.tensors()) {
      if (tensor.shape.size() == 2) {
        linears.emplace_back(tensor.role, tensor.name);
      }
    }
    for (const Json& rule : recipe.unused_rules(linears)) {
      log(LogLevel::warning, "{}: no linear of the model matches the rule {}", preset_or_file,
          rule.dump());
    }
  }
  return recipe;
}

void QuantOptions::add_to(CLI::App& app) {
  const auto bits = [&app](const std::string& name, std::optional<int>& value,
                           const std::string& what, std::set<int> known) {
    app.add_option(name, value, what)->check(CLI::IsMember(std::move(known)));
  };
  bits("--w_bits", w_bits,
       "bits of routed experts' weights, the other linears have 8 (default 8; 16: no weight is "
       "quantized)",
       {4, 8, 16});
  bits("--a_bits", a_bits,
       "bits of the inputs of quantized linears (default 8; 16: floating point)", {4, 8, 16});
  bits("--q_bits", q_bits, "bits of the indexer's query (default 8)", {4, 8, 16});
  bits("--k_bits", k_bits, "bits of latent or key cache and of the indexer's key (default 8)",
       {4, 8, 16});
  bits("--v_bits", v_bits, "bits of the value cache (default 8)", {4, 8, 16});
  app.add_option("--cls", cls, "cache: c8 (int8) or bf16 (not quantized) (default c8)")
      ->check(CLI::IsMember({"c8", "bf16"}));
  app.add_option("--recipe", recipe, "recipe file, or a preset: w8a8c8, w8a8c16, w4a8c8, w4a8c16")
      ->type_name("RECIPE");
}

bool QuantOptions::given() const {
  return recipe || w_bits || a_bits || q_bits || k_bits || v_bits || cls;
}

Recipe QuantOptions::resolve(const Model& model) const {
  check(!recipe || !w_bits, "--recipe and --w_bits: the recipe says how many bits; leave one out");
  Recipe result =
      recipe ? load_recipe(*recipe, model) : Recipe::preset(w_bits == 4 ? "w4a8c8" : "w8a8c8");
  if (w_bits == kFloatBits) {
    result = result.with_weight_bits(kFloatBits);
  }
  if (a_bits) {
    result = result.with_activation_bits(*a_bits);
  }
  if (cls == "bf16") {
    result = result.with_float_cache();
  }
  result = q_bits ? with_point_bits(result, "indexer_query", *q_bits) : result;
  for (const char* point : {"kv_latent", "key_cache", "indexer_key"}) {
    result = k_bits ? with_point_bits(result, point, *k_bits) : result;
  }
  return v_bits ? with_point_bits(result, "value_cache", *v_bits) : result;
}

}  // namespace blockptq::cli
