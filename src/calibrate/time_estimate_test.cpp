#include "calibrate/time_estimate.h"

#include <gtest/gtest.h>

namespace blockptq {
namespace {

PieceSpec piece(Unit unit, int64_t block, std::vector<int64_t> shape) {
  return {{{{"w", "expert.up_proj", std::move(shape), unit, block}}}};
}

/// A dense block and two with four experts each.
std::vector<PieceSpec> small_model() {
  std::vector<PieceSpec> pieces{piece(Unit::embedding, -1, {100, 8}),
                                piece(Unit::attention, 0, {8, 8}),
                                piece(Unit::feed_forward, 0, {32, 8})};
  for (int64_t block = 1; block < 3; ++block) {
    pieces.push_back(piece(Unit::attention, block, {8, 8}));
    pieces.push_back(piece(Unit::feed_forward, block, {16, 8}));
    for (int i = 0; i < 4; ++i) {
      pieces.push_back(piece(Unit::expert, block, {16, 8}));
    }
  }
  return pieces;
}

TEST(TimeEstimate, KindsThatWereSeenTakeAsLongAgain) {
  TimeEstimate estimate(small_model(), Recipe::preset("w8a8c8"), 1000, 0.5);
  EXPECT_EQ(estimate.remaining(), 0);
  estimate.finished(Unit::attention, 0, 3);
  estimate.finished(Unit::feed_forward, 0, 7);
  estimate.finished(Unit::attention, 1, 5);
  estimate.finished(Unit::feed_forward, 1, 2);
  estimate.finished(Unit::expert, 1, 1);
  EXPECT_DOUBLE_EQ(estimate.remaining(), 3 * 1 + 4 + 2 + 4 * 1);
}

TEST(TimeEstimate, KindsThatWereNotSeenGoByTheirArithmetic) {
  // One token: 14 O I for the passes, 14 O I^2 + 4 I^2 for rounding, with I = 8.
  TimeEstimate estimate(small_model(), Recipe::preset("w8a8c8"), 1, 1);
  const auto cost = [](double outputs) { return 14 * outputs * 8 + 14 * outputs * 64 + 4 * 64; };
  const double seconds = 2;
  estimate.finished(Unit::attention, 0, seconds);
  const double rest = cost(32) + 2 * cost(16) + 8 * cost(16);
  EXPECT_NEAR(estimate.remaining(), 2 * seconds + rest * seconds / cost(8), 1e-9);
}

}  // namespace
}  // namespace blockptq
