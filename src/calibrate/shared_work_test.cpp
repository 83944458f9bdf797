// What ranks make together is what one makes alone, to the bit.
#include "calibrate/shared_work.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <mutex>
#include <vector>

#include "quant/algorithms/algorithms.h"
#include "run/thread_group.h"

namespace blockptq {
namespace {

constexpr int kRanks = 3;

/// The outcome of `work` on every rank.
template <typename T>
std::vector<T> on_all_ranks(const std::function<T(Ranks&)>& work) {
  std::vector<T> results(kRanks);
  run_ranks(kRanks, [&](Ranks& ranks) { results[ranks.rank()] = work(ranks); });
  return results;
}

void expect_same(const at::Tensor& a, const at::Tensor& b) {
  ASSERT_TRUE(a.defined() && b.defined());
  EXPECT_TRUE(at::equal(a, b));
}

TEST(SharedWork, SumsAreAddedInTheOrderOfTheItems) {
  const auto numbers_of = [](int64_t i) { return std::vector<double>{0.1 * i, 1.0 / (1 + i)}; };
  std::vector<double> expected(2);
  for (int64_t i = 0; i < 10; ++i) {
    expected[0] += 0.1 * i;
    expected[1] += 1.0 / (1 + i);
  }
  EXPECT_EQ(shared_sums(alone(), 10, 2, numbers_of), expected);
  std::mutex mutex;
  int calls = 0;
  const auto found = on_all_ranks<std::vector<double>>([&](Ranks& ranks) {
    return shared_sums(ranks, 10, 2, [&](int64_t i) {
      const std::lock_guard lock(mutex);
      ++calls;
      return numbers_of(i);
    });
  });
  EXPECT_EQ(found, std::vector<std::vector<double>>(kRanks, expected));
  EXPECT_EQ(calls, 10);
}

TEST(SharedWork, VectorsAreThoseOfRankZero) {
  const auto found = on_all_ranks<at::Tensor>([](Ranks& ranks) {
    return shared_vector(ranks, ranks.rank() == 0 ? at::arange(5, at::kFloat) : at::Tensor(),
                         at::kCPU);
  });
  for (const at::Tensor& vector : found) {
    expect_same(vector, at::arange(5, at::kFloat));
  }
  const auto none = on_all_ranks<at::Tensor>(
      [](Ranks& ranks) { return shared_vector(ranks, at::Tensor(), at::kCPU); });
  for (const at::Tensor& vector : none) {
    EXPECT_FALSE(vector.defined());
  }
}

TEST(SharedWork, EachMatrixIsSummedUpByOneRank) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({20, 9});
  const at::Tensor y = at::randn({20, 9}).add_(x);
  StatisticsSum sum(/*hessian=*/true, /*cross=*/true);
  sum.add(x, y, {});
  const GroupedStatistics expected = sum.take();
  std::array<bool, kRanks> sums{};
  const auto found = on_all_ranks<GroupedStatistics>([&](Ranks& ranks) {
    SharedStatistics shared(ranks, 5, /*cross=*/true);
    sums[ranks.rank()] = shared.sums(ranks.rank());
    if (shared.sums(ranks.rank())) {
      shared.add(x, y, {});
    }
    return shared.take(9, x.device());
  });
  EXPECT_EQ(sums, (std::array<bool, kRanks>{true, false, true}));
  for (const GroupedStatistics& statistics : found) {
    ASSERT_EQ(statistics.size(), 1U);
    EXPECT_EQ(statistics[0].tokens, 20);
    expect_same(statistics[0].hessian_II, expected[0].hessian_II);
    expect_same(statistics[0].cross_II, expected[0].cross_II);
  }
}

/// Weights of several slabs and of one, the last with factors folded in.
std::vector<TargetWeight> some_weights(int64_t features) {
  const int64_t slab = (int64_t{1} << 22) / features;
  return {at::randn({slab + 70, features}), at::randn({5, features}),
          TargetWeight(at::randn({40, features}),
                       {at::rand({40}).add_(0.5), at::rand({features}).add_(0.5)})};
}

class ChosenTogether : public testing::TestWithParam<const char*> {};

TEST_P(ChosenTogether, CodesAreThoseOfOneRank) {
  constexpr int64_t kFeatures = 1024;
  at::manual_seed(4);
  const std::vector<TargetWeight> weights = some_weights(kFeatures);
  StatisticsSum sum(/*hessian=*/true, /*cross=*/true);
  const at::Tensor x = at::randn({64, kFeatures});
  sum.add(at::randn({64, kFeatures}).mul_(0.1).add_(x), x, {});
  const GroupedStatistics input = sum.take();
  const Algorithm algorithm =
      make_algorithm(GetParam(), JsonView(Json::object(), "recipe", "algorithm"), at::kFloat);
  const std::vector<QTensor> expected = algorithm(weights, 4, input);
  const auto found = on_all_ranks<std::vector<QTensor>>(
      [&](Ranks& ranks) { return choose_together(ranks, algorithm, weights, 4, input); });
  for (const std::vector<QTensor>& codes : found) {
    ASSERT_EQ(codes.size(), expected.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      expect_same(codes[i].codes_OI, expected[i].codes_OI);
      expect_same(codes[i].scales_O, expected[i].scales_O);
      EXPECT_EQ(codes[i].bits, 4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Algorithms, ChosenTogether,
                         testing::Values("nearest", "scale_search", "gptq"));

}  // namespace
}  // namespace blockptq
