#include "base/ranks.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace blockptq {
namespace {

class Alone : public Ranks {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Transfer> send(int, Channel, const void*, int64_t) override {
    BPTQ_ASSERT(false);
    return nullptr;
  }
  std::unique_ptr<Transfer> receive(int, Channel, void*, int64_t) override {
    BPTQ_ASSERT(false);
    return nullptr;
  }
  void abandon(const std::string&) override {}
};

}  // namespace

Ranks& alone() {
  static Alone instance;
  return instance;
}

// A binomial tree: in step k, the 2^k ranks nearest to the root (counted from it, round) that have
// the bytes pass them on, 2^k ranks further.
void broadcast(Ranks& ranks, Channel channel, void* data, int64_t bytes, int root) {
  const int size = ranks.size();
  const int place = (ranks.rank() - root + size) % size;
  const auto rank_at = [&](int other) { return (other + root) % size; };
  if (bytes == 0) {
    return;
  }
  std::vector<std::unique_ptr<Transfer>> sends;
  for (int step = 1; step < size; step *= 2) {
    if (place < step) {
      if (place + step < size) {
        sends.push_back(ranks.send(rank_at(place + step), channel, data, bytes));
      }
    } else if (place < 2 * step) {
      ranks.receive(rank_at(place - step), channel, data, bytes)->wait();
    }
  }
  for (const auto& transfer : sends) {
    transfer->wait();
  }
}

void broadcast(Ranks& ranks, std::string& text, int root) {
  auto size = static_cast<int64_t>(text.size());
  broadcast(ranks, Channel::control, &size, sizeof(size), root);
  text.resize(static_cast<size_t>(size));
  broadcast(ranks, Channel::control, text.data(), size, root);
}

std::vector<std::string> gather(Ranks& ranks, const std::string& text) {
  std::vector<std::string> texts(static_cast<size_t>(ranks.size()));
  for (int root = 0; root < ranks.size(); ++root) {
    std::string& slot = texts[static_cast<size_t>(root)];
    if (root == ranks.rank()) {
      slot = text;
    }
    broadcast(ranks, slot, root);
  }
  return texts;
}

std::vector<int64_t> gather_numbers(Ranks& ranks, int64_t value) {
  std::vector<int64_t> values;
  for (const std::string& text : gather(ranks, std::to_string(value))) {
    values.push_back(std::stoll(text));
  }
  return values;
}

void meet(Ranks& ranks) {
  gather(ranks, "here");
}

int64_t sum(Ranks& ranks, int64_t value) {
  const auto values = gather_numbers(ranks, value);
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

int64_t maximum(Ranks& ranks, int64_t value) {
  const auto values = gather_numbers(ranks, value);
  return *std::max_element(values.begin(), values.end());
}

void check_same_job(Ranks& ranks, const Json& description) {
  const std::vector<std::string> all = gather(ranks, description.dump());
  const Json expected = Json::parse(all.front());
  for (size_t rank = 1; rank < all.size(); ++rank) {
    const Json found = Json::parse(all[rank]);
    for (const auto& [key, value] : expected.items()) {
      const Json other = found.value(key, Json());
      check(other == value,
            "rank {}: {}: expected {} as rank 0 has, found {}: all ranks of a job run the same "
            "program with the same model, text and options",
            rank, key, value.dump(), other.dump());
    }
  }
}

AbandonOnError::~AbandonOnError() {
  if (std::uncaught_exceptions() > before_) {
    ranks_.abandon("it stopped, see its own message");
  }
}

}  // namespace blockptq
