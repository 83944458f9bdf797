#include "deploy/ordered_work.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace blockptq {
namespace {

using testing::ElementsAreArray;

TEST(OrderedWork, TakesEveryItemInOrderFromASlotOfItsOwn) {
  for (const int64_t slots : {1, 2, 7}) {
    std::vector<int64_t> squares(static_cast<size_t>(slots), -1);
    std::vector<int64_t> taken;
    produce_in_order(
        100, 3, slots,
        [&](int64_t item, int64_t slot) {
          EXPECT_EQ(squares[slot], -1) << "slot " << slot << " is in use";
          squares[slot] = item * item;
        },
        [&](int64_t item, int64_t slot) {
          EXPECT_EQ(squares[slot], item * item);
          squares[slot] = -1;
          taken.push_back(item);
        });
    std::vector<int64_t> all(100);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_THAT(taken, ElementsAreArray(all)) << slots << " slots";
  }
}

TEST(OrderedWork, ComputesEachItemOnOneCoreAndLeavesOtherThreadsAlone) {
  const int before = at::get_num_threads();
  std::atomic<int> most{0};
  produce_in_order(
      4, 2, 2,
      [&](int64_t /*item*/, int64_t /*slot*/) {
        most = std::max(most.load(), at::get_num_threads());
      },
      [](int64_t /*item*/, int64_t /*slot*/) {});
  EXPECT_EQ(most, 1);
  EXPECT_EQ(at::get_num_threads(), before);
}

TEST(OrderedWork, ThrowsWhatEitherSideThrows) {
  const auto nothing = [](int64_t /*item*/, int64_t /*slot*/) {};
  const auto at_7 = [](int64_t item, int64_t /*slot*/) {
    if (item == 7) {
      throw std::runtime_error("seven");
    }
  };
  EXPECT_THROW(produce_in_order(100, 3, 4, at_7, nothing), std::runtime_error);
  EXPECT_THROW(produce_in_order(100, 3, 4, nothing, at_7), std::runtime_error);
  produce_in_order(0, 3, 4, at_7, at_7);
}

}  // namespace
}  // namespace blockptq
