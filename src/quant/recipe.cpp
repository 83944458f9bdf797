#include "quant/recipe.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "quant/presets.h"

namespace blockptq {
namespace {

constexpr std::array kCachePoints{"kv_latent", "indexer_query", "indexer_key", "key_cache",
                                  "value_cache"};

void expect_keys(const JsonView& json, const std::set<std::string>& known) {
  json.expect_object();
  for (const auto& [key, value] : json.raw().items()) {
    check(known.contains(key), "{}: unknown key '{}'; expected one of {}", json.where(), key,
          fmt::join(known, ", "));
  }
}

int parse_bits(const JsonView& json) {
  const int64_t bits = json.integer(2, kFloatBits);
  check(bits <= 8 || bits == kFloatBits,
        "{}: expected 2 to 8 bits, or 16 for floating point, found {}", json.where(), bits);
  return static_cast<int>(bits);
}

std::vector<std::string> parse_patterns(const JsonView& rule, std::string_view key) {
  const auto found = rule.find(key);
  if (!found) {
    return {"*"};
  }
  if (found->raw().is_string()) {
    return {found->string()};
  }
  found->expect_array();
  std::vector<std::string> patterns;
  for (size_t i = 0; i < found->size(); ++i) {
    patterns.push_back(found->at(i).string());
  }
  return patterns;
}

void check_rule(const JsonView& rule) {
  expect_keys(rule, {"role", "name", "weight_bits", "activation_bits", "algorithm", "refine"});
  for (const char* key : {"weight_bits", "activation_bits"}) {
    if (const auto bits = rule.find(key)) {
      parse_bits(*bits);
    }
  }
  for (const char* key : {"algorithm", "refine"}) {
    if (const auto named = rule.find(key)) {
      named->at("name").string();
    }
  }
}

CacheScheme parse_cache(const JsonView& json) {
  expect_keys(json, {"bits", "group", "hadamard"});
  CacheScheme scheme;
  scheme.bits = parse_bits(json.at("bits"));
  scheme.group = json.integer_or("group", 0, 0, 1 << 20);
  scheme.hadamard = json.boolean_or("hadamard", false);
  return scheme;
}

Json cache_json(const CacheScheme& scheme) {
  Json json{{"bits", scheme.bits}};
  if (scheme.group > 0) {
    json["group"] = scheme.group;
  }
  if (scheme.hadamard) {
    json["hadamard"] = true;
  }
  return json;
}

Smoothing parse_smoothing(const JsonView& json) {
  const auto where = json.find("where");
  const std::string name = where ? where->string() : "all";
  check(name == "all" || name == "hidden", "{}: expected 'all' or 'hidden', found '{}'",
        where ? where->where() : json.where(), name);
  return name == "all" ? Smoothing::all : Smoothing::hidden;
}

Transforms parse_transforms(const JsonView& json) {
  expect_keys(json, {"smooth", "rotate"});
  Transforms transforms;
  if (const auto smooth = json.find("smooth")) {
    expect_keys(*smooth, {"where"});
    transforms.smooth = parse_smoothing(*smooth);
  }
  if (const auto rotate = json.find("rotate")) {
    expect_keys(*rotate, {"seed"});
    transforms.rotate_seed = rotate->at("seed").integer(0);
  }
  return transforms;
}

bool any_matches(const std::vector<std::string>& patterns, std::string_view text) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches_pattern(pattern, text); });
}

}  // namespace

bool matches_pattern(std::string_view pattern, std::string_view text) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) {
    return pattern == text;
  }
  if (!text.starts_with(pattern.substr(0, star))) {
    return false;
  }
  const std::string_view rest = pattern.substr(star + 1);
  text.remove_prefix(star);
  for (size_t skipped = 0; skipped <= text.size(); ++skipped) {
    if (matches_pattern(rest, text.substr(skipped))) {
      return true;
    }
  }
  return false;
}

Recipe::Recipe() : json_{{"linears", Json::array()}, {"cache", Json::object()}} {}

Recipe Recipe::parse(const Json& json, const std::string& origin) {
  const JsonView view(json, origin);
  expect_keys(view, {"linears", "cache", "transforms"});
  Recipe recipe;
  if (const auto linears = view.find("linears")) {
    linears->expect_array();
    for (size_t i = 0; i < linears->size(); ++i) {
      check_rule(linears->at(i));
      recipe = recipe.with_rule(linears->at(i).raw());
    }
  }
  if (const auto cache = view.find("cache")) {
    expect_keys(*cache, {kCachePoints.begin(), kCachePoints.end()});
    for (const auto& [point, value] : cache->raw().items()) {
      recipe = recipe.with_cache(point, parse_cache(cache->at(point)));
    }
  }
  if (const auto transforms = view.find("transforms")) {
    recipe.transforms_ = parse_transforms(*transforms);
    recipe.json_["transforms"] = transforms->raw();
  }
  return recipe;
}

Recipe Recipe::preset(std::string_view name) {
  for (const Preset& preset : presets()) {
    if (preset.name == name) {
      return parse(parse_json(preset.text, preset.name), std::string(preset.name));
    }
  }
  std::vector<std::string_view> names;
  for (const Preset& preset : presets()) {
    names.push_back(preset.name);
  }
  fail("recipe '{}': expected a file or one of {}", name, fmt::join(names, ", "));
}

Recipe Recipe::load(const std::string& preset_or_file) {
  if (std::filesystem::exists(preset_or_file)) {
    return parse(parse_json(read_file(preset_or_file), preset_or_file), preset_or_file);
  }
  return preset(preset_or_file);
}

bool Recipe::Rule::matches(std::string_view role, std::string_view name) const {
  return any_matches(roles, role) && any_matches(names, name);
}

std::vector<Json> Recipe::unused_rules(
    const std::vector<std::pair<std::string, std::string>>& linears) const {
  std::vector<Json> unused;
  for (const Rule& rule : rules_) {
    if (std::none_of(linears.begin(), linears.end(), [&](const auto& linear) {
          return rule.matches(linear.first, linear.second);
        })) {
      unused.push_back(rule.settings);
    }
  }
  return unused;
}

LinearScheme Recipe::linear(std::string_view role, std::string_view name) const {
  LinearScheme scheme;
  for (const Rule& rule : rules_) {
    if (rule.matches(role, name)) {
      scheme.weight_bits = rule.settings.value("weight_bits", scheme.weight_bits);
      scheme.activation_bits = rule.settings.value("activation_bits", scheme.activation_bits);
      scheme.algorithm = rule.settings.value("algorithm", scheme.algorithm);
      scheme.refine = rule.settings.value("refine", scheme.refine);
    }
  }
  return scheme;
}

bool Recipe::quantizes(std::string_view role, std::string_view name) const {
  return linear(role, name).weight_bits != kFloatBits;
}

CacheScheme Recipe::cache(std::string_view point) const {
  const auto found = cache_.find(point);
  return found == cache_.end() ? CacheScheme() : found->second;
}

Recipe Recipe::with_rule(const Json& rule) const {
  Recipe recipe = *this;
  const JsonView view(rule, "recipe");
  recipe.rules_.push_back({parse_patterns(view, "role"), parse_patterns(view, "name"), rule});
  recipe.json_["linears"].push_back(rule);
  return recipe;
}

Recipe Recipe::with_cache(std::string_view point, const CacheScheme& scheme) const {
  Recipe recipe = *this;
  recipe.cache_[std::string(point)] = scheme;
  recipe.json_["cache"][std::string(point)] = cache_json(scheme);
  return recipe;
}

Recipe Recipe::with_setting(const char* key, int bits) const {
  Recipe recipe = *this;
  recipe.rules_.clear();
  recipe.json_["linears"] = Json::array();
  for (Json rule : json_["linears"]) {
    if (rule.value(key, kFloatBits) != kFloatBits) {
      rule[key] = bits;
    }
    recipe = recipe.with_rule(rule);
  }
  return recipe;
}

Recipe Recipe::with_weight_bits(int bits) const {
  return with_setting("weight_bits", bits);
}

Recipe Recipe::with_activation_bits(int bits) const {
  return with_setting("activation_bits", bits);
}

Recipe Recipe::without_transforms() const {
  Recipe recipe = *this;
  recipe.transforms_ = {};
  recipe.json_.erase("transforms");
  return recipe;
}

Recipe Recipe::without_rotation() const {
  Recipe recipe = *this;
  if (transforms_.rotate_seed) {
    recipe.transforms_.rotate_seed.reset();
    recipe.json_["transforms"].erase("rotate");
  }
  return recipe;
}

Recipe Recipe::with_float_cache() const {
  Recipe recipe = *this;
  recipe.cache_.clear();
  recipe.json_["cache"] = Json::object();
  return recipe;
}

}  // namespace blockptq
