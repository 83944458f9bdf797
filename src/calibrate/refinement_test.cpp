#include "calibrate/refinement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace blockptq {
namespace {

TEST(Refinement, ReadsNamesAndOptions) {
  EXPECT_TRUE(std::holds_alternative<std::monostate>(parse_refinement({{"name", "none"}})));
  const auto clips = std::get<ClipLearnerOptions>(
      parse_refinement({{"name", "learned_clip"}, {"passes", 3}, {"activations", true}}));
  EXPECT_EQ(clips.passes, 3);
  EXPECT_TRUE(clips.activations);
  const auto rounding = std::get<RoundLearnerOptions>(
      parse_refinement({{"name", "learned_round"}, {"damping", 0.5}}));
  EXPECT_EQ(rounding.damping, 0.5);
  EXPECT_EQ(rounding.passes, RoundLearnerOptions().passes);
}

TEST(Refinement, RoundingIsTheDefaultOfFewBitsOnly) {
  const Json rounding{{"name", "learned_round"}};
  const auto rounds = [&](int bits, const Json& refine) {
    LinearScheme gate;
    gate.weight_bits = bits;
    gate.refine = refine;
    return std::holds_alternative<RoundLearnerOptions>(refinement_of(gate, rounding));
  };
  EXPECT_TRUE(rounds(4, nullptr));
  EXPECT_FALSE(rounds(8, nullptr));
  EXPECT_TRUE(rounds(8, rounding));
  EXPECT_FALSE(rounds(4, {{"name", "none"}}));
}

TEST(Refinement, RefusesWhatItDoesNotKnow) {
  const auto message = [](const Json& rule) -> std::string {
    try {
      parse_refinement(rule);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_THAT(message({{"name", "adaround"}}), testing::HasSubstr("unknown refinement 'adaround'"));
  EXPECT_THAT(message({{"name", "learned_round"}, {"weights", true}}),
              testing::HasSubstr("unknown option 'weights'"));
  EXPECT_THAT(message({{"name", "learned_round"}, {"passes", 0}}), testing::HasSubstr("passes"));
}

}  // namespace
}  // namespace blockptq
