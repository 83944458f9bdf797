#include "run/thread_group.h"

#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include "base/error.h"

namespace blockptq {
namespace {

/// A message and where it goes; whoever comes second copies.
struct Letter {
  const void* from = nullptr;
  void* to = nullptr;
  int64_t bytes = 0;
  bool done = false;
};

using Line = std::tuple<int, int, Channel>;  ///< sender, receiver

/// Where all ranks of a group leave their letters.
struct PostOffice {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::pair<Line, int64_t>, std::shared_ptr<Letter>> letters;  ///< by number on the line
  std::map<Line, int64_t> sent;
  std::map<Line, int64_t> received;
  std::string lost;
};

class LetterTransfer : public Transfer {
 public:
  LetterTransfer(PostOffice& office, std::shared_ptr<Letter> letter)
      : office_(office), letter_(std::move(letter)) {}
  ~LetterTransfer() override {
    const std::lock_guard lock(office_.mutex);
    letter_->from = nullptr;
    letter_->to = nullptr;
  }
  void wait() override {
    std::unique_lock lock(office_.mutex);
    office_.changed.wait(lock, [&] { return letter_->done || !office_.lost.empty(); });
    if (!letter_->done) {
      throw RankLost(office_.lost);
    }
  }

 private:
  PostOffice& office_;
  std::shared_ptr<Letter> letter_;
};

class ThreadRanks : public Ranks {
 public:
  ThreadRanks(PostOffice& office, int rank, int size) : office_(office), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transfer> send(int to, Channel channel, const void* data,
                                 int64_t bytes) override {
    return post({rank_, to, channel}, office_.sent, bytes,
                [&](Letter& letter) { letter.from = data; });
  }
  std::unique_ptr<Transfer> receive(int from, Channel channel, void* data, int64_t bytes) override {
    return post({from, rank_, channel}, office_.received, bytes,
                [&](Letter& letter) { letter.to = data; });
  }
  void abandon(const std::string& reason) override {
    const std::lock_guard lock(office_.mutex);
    if (office_.lost.empty()) {
      office_.lost = fmt::format("device {}: {}", rank_, reason);
    }
    office_.changed.notify_all();
  }

 private:
  std::unique_ptr<Transfer> post(const Line& line, std::map<Line, int64_t>& counts, int64_t bytes,
                                 const std::function<void(Letter&)>& fill) {
    const std::lock_guard lock(office_.mutex);
    if (!office_.lost.empty()) {
      throw RankLost(office_.lost);
    }
    const auto key = std::pair(line, counts[line]++);
    std::shared_ptr<Letter>& slot = office_.letters[key];
    const bool second = slot != nullptr;
    if (!second) {
      slot = std::make_shared<Letter>();
      slot->bytes = bytes;
    }
    const std::shared_ptr<Letter> letter = slot;
    BPTQ_ASSERT(letter->bytes == bytes);
    fill(*letter);
    if (second) {
      office_.letters.erase(key);
      if (letter->from != nullptr && letter->to != nullptr) {
        std::memcpy(letter->to, letter->from, static_cast<size_t>(bytes));
        letter->done = true;
        office_.changed.notify_all();
      }
    }
    return std::make_unique<LetterTransfer>(office_, letter);
  }

  PostOffice& office_;
  int rank_;
  int size_;
};

}  // namespace

void run_ranks(int size, const std::function<void(Ranks& ranks)>& work) {
  PostOffice office;
  std::mutex mutex;
  std::exception_ptr first;
  const auto run = [&](int rank) {
    ThreadRanks ranks(office, rank, size);
    try {
      work(ranks);
    } catch (...) {
      {
        const std::lock_guard lock(mutex);
        first = first ? first : std::current_exception();
      }
      ranks.abandon("it stopped");
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < size; ++rank) {
    threads.emplace_back(run, rank);
  }
  run(0);
  for (std::thread& thread : threads) {
    thread.join();
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

}  // namespace blockptq
