#include "quant/recipe.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace blockptq {
namespace {

Recipe parse(const char* text) {
  return Recipe::parse(parse_json(text, "test.json"), "test.json");
}

std::string error_of(const char* text) {
  try {
    parse(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Pattern, StarStandsForAnyText) {
  EXPECT_TRUE(matches_pattern("expert.*", "expert.up_proj"));
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(
      matches_pattern("model.layers.*.mlp.*_proj.weight", "model.layers.3.mlp.up_proj.weight"));
  EXPECT_FALSE(matches_pattern("expert.*", "shared_expert.up_proj"));
  EXPECT_FALSE(matches_pattern("mlp.up_proj", "mlp.up_proj.weight"));
}

TEST(Recipe, LaterRulesWinKeyByKey) {
  const Recipe recipe = parse(R"({"linears": [
      {"weight_bits": 8, "activation_bits": 8},
      {"role": ["expert.*", "mlp.*"], "weight_bits": 4},
      {"name": "*.layers.3.*", "algorithm": {"name": "nearest"}}]})");
  const LinearScheme plain = recipe.linear("attention.o_proj", "model.layers.1.o_proj.weight");
  EXPECT_EQ(plain.weight_bits, 8);
  EXPECT_TRUE(plain.algorithm.is_null());
  const LinearScheme expert = recipe.linear("expert.up_proj", "model.layers.3.up_proj.weight");
  EXPECT_EQ(expert.weight_bits, 4);
  EXPECT_EQ(expert.activation_bits, 8);
  EXPECT_EQ(expert.algorithm.at("name"), "nearest");
}

TEST(Recipe, PresetsQuantizeWhatTheirNamesSay) {
  const Recipe w4a8c8 = Recipe::preset("w4a8c8");
  EXPECT_EQ(w4a8c8.linear("expert.up_proj", "x").weight_bits, 4);
  EXPECT_EQ(w4a8c8.linear("shared_expert.up_proj", "x").weight_bits, 8);
  EXPECT_EQ(w4a8c8.linear("attention.kv_b_proj", "x").weight_bits, kFloatBits);
  EXPECT_EQ(w4a8c8.linear("router", "x").weight_bits, kFloatBits);
  EXPECT_EQ(w4a8c8.cache("kv_latent"), (CacheScheme{8, 128, false}));
  EXPECT_EQ(w4a8c8.cache("indexer_key"), (CacheScheme{8, 0, true}));
  const Recipe w8a8c16 = Recipe::preset("w8a8c16");
  EXPECT_EQ(w8a8c16.linear("expert.up_proj", "x").weight_bits, 8);
  EXPECT_EQ(w8a8c16.cache("kv_latent"), CacheScheme());
  EXPECT_THROW(Recipe::preset("w3a8"), Error);
}

TEST(Recipe, ChangesKeepTheRest) {
  const Recipe recipe = Recipe::preset("w4a8c8").with_activation_bits(4).with_float_cache();
  EXPECT_EQ(recipe.linear("expert.up_proj", "x").activation_bits, 4);
  EXPECT_EQ(recipe.linear("expert.up_proj", "x").weight_bits, 4);
  EXPECT_EQ(recipe.linear("router", "x").activation_bits, kFloatBits);
  EXPECT_EQ(recipe.cache("kv_latent"), CacheScheme());
  // What is written to run.json is what was done.
  EXPECT_EQ(Recipe::parse(recipe.json(), "again").json(), recipe.json());
  EXPECT_EQ(
      Recipe::preset("w8a8c8").with_weight_bits(kFloatBits).linear("mlp.up_proj", "x").weight_bits,
      kFloatBits);
}

TEST(Recipe, TransformsAreOffUnlessNamed) {
  const auto transforms = [](const char* text) {
    return Recipe::parse(parse_json(text, "recipe"), "recipe").transforms();
  };
  EXPECT_FALSE(transforms("{}").rotate_seed.has_value());
  EXPECT_EQ(transforms("{}").smooth, Smoothing::none);
  EXPECT_EQ(transforms(R"({"transforms": {"smooth": {}}})").smooth, Smoothing::all);
  EXPECT_EQ(transforms(R"({"transforms": {"smooth": {"where": "hidden"}}})").smooth,
            Smoothing::hidden);
  EXPECT_FALSE(transforms(R"({"transforms": {"smooth": {}}})").rotate_seed);
  EXPECT_EQ(transforms(R"({"transforms": {"rotate": {"seed": 7}}})").rotate_seed, 7U);
  EXPECT_NE(error_of(R"({"transforms": {"rotate": {}}})").find("seed"), std::string::npos);
  EXPECT_NE(error_of(R"({"transforms": {"smooth": {"alpha": 1}}})").find("unknown key 'alpha'"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"transforms": {"smooth": {"where": "norm"}}})").find("found 'norm'"),
            std::string::npos);
}

TEST(Recipe, WithoutRotationSmoothingRemains) {
  const char* text = R"({"transforms": {"smooth": {}, "rotate": {"seed": 7}}})";
  const Recipe recipe = Recipe::parse(parse_json(text, "recipe"), "recipe").without_rotation();
  EXPECT_EQ(recipe.transforms().smooth, Smoothing::all);
  EXPECT_FALSE(recipe.transforms().rotate_seed.has_value());
  const Recipe again = Recipe::parse(recipe.json(), "again");
  EXPECT_EQ(again.transforms().smooth, Smoothing::all);
  EXPECT_FALSE(again.transforms().rotate_seed.has_value());
}

TEST(Recipe, RefusesWhatItDoesNotKnow) {
  EXPECT_NE(error_of(R"({"linear": []})").find("unknown key 'linear'"), std::string::npos);
  EXPECT_NE(error_of(R"({"linears": [{"bits": 4}]})").find("linears"), std::string::npos);
  EXPECT_NE(error_of(R"({"linears": [{"weight_bits": 12}]})").find("weight_bits"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"linears": [{"role": 3}]})").find("role"), std::string::npos);
  EXPECT_NE(error_of(R"({"cache": {"latent": {"bits": 8}}})").find("latent"), std::string::npos);
  EXPECT_NE(error_of(R"({"cache": {"kv_latent": {}}})").find("bits"), std::string::npos);
}

}  // namespace
}  // namespace blockptq
