#include "run/thread_group.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "base/error.h"

namespace blockptq {
namespace {

TEST(ThreadGroup, BroadcastReachesAllFromAnyRoot) {
  for (const int size : {1, 2, 3, 5, 8}) {
    for (int root = 0; root < size; ++root) {
      std::atomic<int> right = 0;
      run_ranks(size, [&](Ranks& ranks) {
        std::vector<int> values(1000);
        if (ranks.rank() == root) {
          std::iota(values.begin(), values.end(), root);
        }
        broadcast(ranks, Channel::weights, values.data(), 4000, root);
        right += static_cast<int>(values.front() == root && values.back() == root + 999);
      });
      EXPECT_EQ(right, size) << "root " << root;
    }
  }
}

TEST(ThreadGroup, GathersByRank) {
  run_ranks(3, [](Ranks& ranks) {
    const auto said = gather(ranks, std::string(static_cast<size_t>(ranks.rank()), 'x'));
    EXPECT_EQ(said, (std::vector<std::string>{"", "x", "xx"}));
    EXPECT_EQ(sum(ranks, ranks.rank() + 1), 6);
    EXPECT_EQ(maximum(ranks, 10 - ranks.rank()), 10);
    meet(ranks);
  });
}

TEST(ThreadGroup, MessagesKeepTheirOrderOnEachChannel) {
  run_ranks(2, [](Ranks& ranks) {
    std::array<int, 4> values{};
    std::vector<std::unique_ptr<Transfer>> transfers;
    for (int i = 0; i < 4; ++i) {
      const Channel channel = i % 2 == 0 ? Channel::control : Channel::states;
      if (ranks.rank() == 0) {
        values[i] = i + 1;
        transfers.push_back(ranks.send(1, channel, &values[i], sizeof(int)));
      } else {
        transfers.push_back(ranks.receive(0, channel, &values[i], sizeof(int)));
      }
    }
    for (const auto& transfer : transfers) {
      transfer->wait();
    }
    EXPECT_EQ(values, (std::array{1, 2, 3, 4}));
  });
}

TEST(ThreadGroup, AFailureEndsAllRanks) {
  EXPECT_THROW(run_ranks(3,
                         [](Ranks& ranks) {
                           if (ranks.rank() == 1) {
                             fail("broken");
                           }
                           int value = 0;
                           ranks.receive(1, Channel::control, &value, sizeof(value))->wait();
                         }),
               Error);
}

TEST(ThreadGroup, DifferentJobsAreRefusedByAll) {
  std::atomic<int> refused = 0;
  run_ranks(3, [&](Ranks& ranks) {
    check_same_job(ranks, {{"model", "a"}, {"rank", "any"}});
    try {
      check_same_job(ranks, {{"model", ranks.rank() == 2 ? "b" : "a"}});
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("rank 2: model: expected \"a\""), std::string::npos);
      ++refused;
    }
  });
  EXPECT_EQ(refused, 3);
}

}  // namespace
}  // namespace blockptq
