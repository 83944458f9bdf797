#include "checkpoint/formats/compressed_tensors_config.h"

#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::refusal;

/// The scheme of `module` under a config with these groups and other keys.
IntScheme scheme(std::string_view groups, std::string_view module, std::string_view more = "") {
  const Json json = parse_json(fmt::format(R"({{{}"config_groups":{}}})", more, groups), "c");
  const CompressedTensorsConfig config{JsonView(json, "c")};
  return config.scheme_of(std::string(module), "f: tensor t");
}

std::string group(std::string_view targets, std::string_view weights) {
  return fmt::format(R"({{"targets":[{}],"weights":{}}})", targets, weights);
}

constexpr std::string_view kW8 = R"({"num_bits":8,"type":"int","strategy":"channel"})";
constexpr std::string_view kW4 =
    R"({"num_bits":4,"type":"int","strategy":"group","group_size":32})";

TEST(CompressedTensorsConfigTest, NamesBeforePatternsBeforeClasses) {
  const std::string groups =
      fmt::format(R"({{"g0":{},"g1":{},"g2":{}}})", group(R"("Linear")", kW8),
                  group(R"("re:.*\\.experts\\.\\d+\\.(up|down)_proj$")", kW4),
                  group(R"("m.experts.7.up_proj")", kW8));
  EXPECT_EQ(scheme(groups, "m.q_proj").bits, 8);
  EXPECT_EQ(scheme(groups, "m.experts.12.up_proj").bits, 4);
  EXPECT_EQ(scheme(groups, "m.experts.12.up_proj").group_size, 32);
  EXPECT_EQ(scheme(groups, "m.experts.7.up_proj").bits, 8);
  EXPECT_EQ(scheme(groups, "m.experts.x.up_proj").bits, 8);
}

TEST(CompressedTensorsConfigTest, PatternsAreAnchoredAtTheStart) {
  const std::string groups = fmt::format(R"({{"g":{}}})", group(R"("re:b\\.c")", kW8));
  EXPECT_EQ(scheme(groups, "b.c.d").bits, 8);
  EXPECT_THAT(refusal([&] { scheme(groups, "a.b.c"); }),
              HasSubstr("f: tensor t: quantized, but no entry of c.config_groups with weights "
                        "targets a.b.c"));
}

TEST(CompressedTensorsConfigTest, ActivationsInFrontOfTheWeights) {
  const auto bits_under = [](std::string_view input) {
    const std::string text = fmt::format(
        R"({{"g":{{"targets":["Linear"],"weights":{},"input_activations":{}}}}})", kW8, input);
    return scheme(text, "a").activation_bits;
  };
  constexpr const char* kToken =
      R"({{"num_bits":{},"type":"{}","strategy":"{}","dynamic":{},"symmetric":{}}})";
  EXPECT_EQ(bits_under("null"), 0);
  EXPECT_EQ(bits_under(fmt::format(kToken, 8, "int", "token", true, true)), 8);
  EXPECT_EQ(bits_under(fmt::format(kToken, 4, "int", "token", true, true)), 4);
  EXPECT_EQ(bits_under(fmt::format(kToken, 8, "float", "token", true, true)), std::nullopt);
  EXPECT_EQ(bits_under(fmt::format(kToken, 8, "int", "tensor", true, true)), std::nullopt);
  EXPECT_EQ(bits_under(fmt::format(kToken, 8, "int", "token", false, true)), std::nullopt);
  EXPECT_EQ(bits_under(fmt::format(kToken, 8, "int", "token", true, false)), std::nullopt);
}

TEST(CompressedTensorsConfigTest, GroupsWithoutWeights) {
  const std::string groups = R"({"g":{"targets":["Linear"],"weights":null}})";
  EXPECT_THAT(refusal([&] { scheme(groups, "a"); }), HasSubstr("no entry"));
}

TEST(CompressedTensorsConfigTest, RefusesWhatItCannotDecode) {
  const auto with_weights = [](std::string_view weights) {
    return refusal(
        [&] { scheme(fmt::format(R"({{"g":{}}})", group("\"Linear\"", weights)), "a"); });
  };
  EXPECT_THAT(with_weights(R"({"num_bits":8,"type":"float","strategy":"channel"})"),
              HasSubstr("c: config_groups.g.weights.type: expected int, found \"float\""));
  for (const char* bits : {"2", "3", "16", "0", "-4", "9223372036854775807", "4294967300"}) {
    EXPECT_THAT(with_weights(fmt::format(R"({{"num_bits":{},"strategy":"channel"}})", bits)),
                HasSubstr("num_bits: expected 4 or 8"));
  }
  EXPECT_THAT(with_weights(R"({"num_bits":8,"strategy":"tensor"})"),
              HasSubstr("strategy: expected channel or group, found \"tensor\""));
  EXPECT_THAT(with_weights(R"({"num_bits":8,"strategy":"group","group_size":0})"),
              HasSubstr("group_size: expected an integer >= 1"));
  EXPECT_THAT(with_weights(R"({"num_bits":8,"strategy":"group"})"),
              HasSubstr("'group_size' is mis"));
  EXPECT_THAT(with_weights(R"({"num_bits":8,"strategy":"channel","symmetric":1})"),
              HasSubstr("symmetric: expected true or false"));
  EXPECT_THAT(with_weights(R"({"num_bits":8,"strategy":"channel","actorder":"group"})"),
              HasSubstr("actorder: columns in another order"));
  EXPECT_THAT(with_weights("7"), HasSubstr("config_groups.g.weights: expected an object"));
}

TEST(CompressedTensorsConfigTest, RefusesOtherConfigs) {
  const auto with_key = [](std::string_view key) {
    return refusal([&] { scheme("{}", "a", key); });
  };
  EXPECT_THAT(with_key(R"("format":"float-quantized",)"),
              HasSubstr("c.format: expected one of int-quantized, naive-quantized, pack-quantized, "
                        "mixed-precision, dense, found \"float-quantized\""));
  EXPECT_THAT(with_key(R"("transform_config":{"R1":{}},)"),
              HasSubstr("c.transform_config: not supp"));
  EXPECT_THAT(with_key(R"("sparsity_config":{"format":"2:4"},)"),
              HasSubstr("c.sparsity_config: not"));
  EXPECT_THAT(refusal([] { scheme("[]", "a"); }), HasSubstr("config_groups: expected an object"));
  EXPECT_THAT(refusal([] { scheme(R"({"g":{"targets":"Linear"}})", "a"); }),
              HasSubstr("targets: expected an array"));
  EXPECT_THAT(refusal([] { scheme(fmt::format(R"({{"g":{}}})", group("\"re:(\"", kW8)), "a"); }),
              HasSubstr("targets[0]: not a regular expression: \"(\""));
}

TEST(CompressedTensorsConfigTest, HostilePatternsEnd) {
  const std::string groups = fmt::format(R"({{"g":{}}})", group(R"("re:(a|aa)+$")", kW8));
  EXPECT_THAT(refusal([&] { scheme(groups, std::string(200, 'a') + "b"); }),
              HasSubstr("regular expression fails"));
}

}  // namespace
}  // namespace blockptq
