#include "eval/expert_exchange.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "eval/gather_states.h"
#include "run/thread_group.h"

namespace blockptq {
namespace {

constexpr int64_t kExperts = 7;
constexpr int64_t kHidden = 3;

/// Tokens of `rank` for `expert`; none for some.
int64_t count_of(int rank, int64_t expert) {
  return (rank * 5 + expert * 3) % 4;
}

/// Row `row` of them: a number of its own in every feature.
at::Tensor tokens_of(int rank, int64_t expert) {
  const int64_t rows = count_of(rank, expert);
  return (at::arange(rows * kHidden, at::TensorOptions(at::kFloat)) + 1000. * rank + 100. * expert)
      .view({rows, kHidden});
}

class ExpertExchange : public testing::TestWithParam<std::pair<int, int64_t>> {};

TEST_P(ExpertExchange, BringsEveryTokenToItsExpertAndBack) {
  const auto [size, max_rows] = GetParam();
  run_ranks(size, [size = size, max_rows = max_rows](Ranks& ranks) {
    std::vector<int64_t> counts;
    for (int64_t e = 0; e < kExperts; ++e) {
      counts.push_back(count_of(ranks.rank(), e));
    }
    std::vector<int64_t> computed;
    std::vector<int64_t> taken;
    exchange_experts(ranks, counts, kHidden, max_rows, at::TensorOptions(at::kFloat),
                     {[&](int64_t e) { return tokens_of(ranks.rank(), e); },
                      [&](int64_t e, const at::Tensor& x_TD) {
                        std::vector<at::Tensor> expected;
                        for (int rank = 0; rank < size; ++rank) {
                          expected.push_back(tokens_of(rank, e));
                        }
                        EXPECT_TRUE(at::equal(x_TD, at::cat(expected)));
                        computed.push_back(e);
                        return x_TD * (e + 2);
                      },
                      [&](int64_t e, const at::Tensor& y_TD) {
                        EXPECT_TRUE(at::equal(y_TD, tokens_of(ranks.rank(), e) * (e + 2)));
                        taken.push_back(e);
                      }});
    EXPECT_EQ(taken, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
    for (const int64_t e : computed) {
      EXPECT_EQ(e % size, ranks.rank());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(RanksAndRounds, ExpertExchange,
                         testing::Values(std::pair(1, 100), std::pair(2, 1), std::pair(2, 100),
                                         std::pair(3, 4), std::pair(9, 1)));

TEST(GatherStates, PartsOfUnequalSizeComeTogetherAndApart) {
  const at::Tensor whole = at::arange(30, at::TensorOptions(at::kLong)).view({10, 3});
  run_ranks(4, [&](Ranks& ranks) {
    const int64_t begin = ranks.rank() * (ranks.rank() + 1) / 2;  // 0, 1, 3, 6
    const at::Tensor part = whole.slice(0, begin, begin + ranks.rank() + 1);
    EXPECT_TRUE(at::equal(gather_rows(ranks, part), whole));
    const at::Tensor gathered = gather_rows(ranks, part, 2);
    EXPECT_EQ(gathered.defined(), ranks.rank() == 2);
    at::Tensor back = at::zeros_like(part);
    scatter_rows(ranks, gathered, back, 2);
    EXPECT_TRUE(at::equal(back, part));
  });
}

}  // namespace
}  // namespace blockptq
