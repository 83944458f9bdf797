#define USE_C10D_GLOO  // else ProcessGroupGloo.hpp is empty
#include "run/process_group.h"

#include <ATen/ATen.h>
#include <arpa/inet.h>
#include <c10/util/Flags.h>
#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "base/error.h"
#include "run/signs_of_life.h"

C10_DECLARE_int(caffe2_log_level);

namespace blockptq {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr std::chrono::hours kNoTimeout{24 * 365};  // signs of life are watched instead

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// The address of this host on its way to `host`: the one that the others can reach.
std::string own_address(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    throw RankLost(fmt::format("{}: no such host", host));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  std::array<char, NI_MAXHOST> text{};
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    const int descriptor = ::socket(entry->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_storage own{};
    socklen_t size = sizeof(own);
    const bool ok = descriptor >= 0 &&
                    ::connect(descriptor, entry->ai_addr, entry->ai_addrlen) == 0 &&
                    ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
                    ::getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text.data(), text.size(),
                                  nullptr, 0, NI_NUMERICHOST) == 0;
    if (descriptor >= 0) {
      ::close(descriptor);
    }
    if (ok) {
      return text.data();
    }
  }
  throw RankLost(fmt::format("{}: no way to this host", host));
}

c10::intrusive_ptr<c10d::Store> open_store(const JobPlace& place, Milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(place.port);
  options.isServer = place.rank == 0 && !place.store_given;
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    return c10::make_intrusive<c10d::PrefixStore>(
        "blockptq/" + place.attempt, c10::make_intrusive<c10d::TCPStore>(place.address, options));
  } catch (const std::exception&) {
    throw RankLost(
        fmt::format("rank {} of {}: no connection to the job's store at {}:{} within "
                    "{} s (MASTER_ADDR, MASTER_PORT)",
                    place.rank, place.size, place.address, place.port, timeout.count() / 1000));
  }
}

at::Tensor bytes_at(const void* data, int64_t bytes) {
  return at::from_blob(const_cast<void*>(data), {bytes}, at::TensorOptions(at::kByte));
}

class ProcessGroup : public Ranks {
 public:
  ProcessGroup(const JobPlace& place, const std::string& version, const JoinOptions& options);
  ~ProcessGroup() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::unique_ptr<Transfer> send(int to, Channel channel, const void* data, int64_t bytes) override;
  std::unique_ptr<Transfer> receive(int from, Channel channel, void* data, int64_t bytes) override;
  void abandon(const std::string& reason) override;

 private:
  class Message;

  void wait_for(const std::string& key, Milliseconds timeout, const std::string& otherwise);
  void find_others(const std::string& version, Milliseconds timeout);
  std::unique_ptr<Transfer> post(int peer,
                                 const std::function<c10::intrusive_ptr<c10d::Work>()>& begin);
  [[noreturn]] void connection_broke(int peer);
  void lose(const std::string& reason);
  void end(const std::string& reason);
  std::string name_of(int rank) const { return fmt::format("rank {} ({})", rank, hosts_[rank]); }

  int rank_;
  int size_;
  c10::intrusive_ptr<c10d::Store> store_;
  std::vector<std::string> hosts_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string lost_;               ///< why the job is lost; empty: it is not
  std::set<c10d::Work*> pending_;  ///< transfers on their way
  std::unique_ptr<SignsOfLife> signs_;
};

class ProcessGroup::Message : public Transfer {
 public:
  Message(ProcessGroup& group, int peer, c10::intrusive_ptr<c10d::Work> work)
      : group_(group), peer_(peer), work_(std::move(work)) {
    group_.pending_.insert(work_.get());
  }
  ~Message() override {
    const std::lock_guard lock(group_.mutex_);
    group_.pending_.erase(work_.get());
  }
  void wait() override {
    bool done = false;
    try {
      done = work_->wait(kNoTimeout);
    } catch (const std::exception&) {
      group_.connection_broke(peer_);
    }
    if (!done) {
      const std::lock_guard lock(group_.mutex_);
      throw RankLost(group_.lost_);
    }
  }

 private:
  ProcessGroup& group_;
  int peer_;
  c10::intrusive_ptr<c10d::Work> work_;
};

ProcessGroup::ProcessGroup(const JobPlace& place, const std::string& version,
                           const JoinOptions& options)
    : rank_(place.rank), size_(place.size), store_(open_store(place, options.join_timeout)) {
  try {
    find_others(version, options.join_timeout);
  } catch (const c10::DistNetworkError&) {
    throw RankLost(fmt::format("rank {} of {}: the job's store at {}:{} is gone", rank_, size_,
                               place.address, place.port));
  }
  const auto gloo_options = c10d::ProcessGroupGloo::Options::create(options.join_timeout);
  gloo_options->threads = 1;
  try {
    gloo_options->devices.push_back(
        c10d::ProcessGroupGloo::createDeviceForHostname(own_address(place.address, place.port)));
    gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(
        c10::make_intrusive<c10d::PrefixStore>("gloo", store_), rank_, size_, gloo_options);
  } catch (const std::exception& error) {
    const std::string what = error.what();  // and where c10 has thrown it
    throw RankLost(fmt::format("{}: no connection to the other ranks: {}", name_of(rank_),
                               what.substr(0, what.find('\n'))));
  }
  signs_ = std::make_unique<SignsOfLife>(
      store_->clone(), rank_, size_, options.lost_after, [this](int rank, const std::string& why) {
        end(rank < 0 ? why : fmt::format("{} is lost: {}", name_of(rank), why));
      });
}

ProcessGroup::~ProcessGroup() {
  signs_->stop();
  bool lost = false;
  {
    const std::lock_guard lock(mutex_);
    lost = !lost_.empty();
  }
  if (!lost) {  // rank 0 may keep the store: it goes last
    constexpr int kPolls = 100;
    try {
      store_->add("left", 1);
      for (int i = 0; rank_ == 0 && i < kPolls && store_->add("left", 0) < size_; ++i) {
        std::this_thread::sleep_for(Milliseconds(20));
      }
    } catch (const std::exception&) {  // the store is gone already: nothing waits for us
    }
  }
}

/// Until `key` is in the store; RankLost, which says that `otherwise`, when it never is.
void ProcessGroup::wait_for(const std::string& key, Milliseconds timeout,
                            const std::string& otherwise) {
  try {
    store_->wait({key}, timeout);
  } catch (const c10::DistStoreError&) {
    throw RankLost(fmt::format("{} within {} s", otherwise, timeout.count() / 1000));
  }
}

/// Waits until every rank has said where it is and of which version.
void ProcessGroup::find_others(const std::string& version, Milliseconds timeout) {
  const auto key = [](int rank) { return "rank/" + std::to_string(rank); };
  store_->set(key(rank_), Json{{"host", host_name()}, {"version", version}}.dump());
  std::vector<std::string> versions;
  for (int rank = 0; rank < size_; ++rank) {
    wait_for(key(rank), timeout, fmt::format("rank {} of {} did not appear", rank, size_));
    const Json found = Json::parse(store_->get_to_str(key(rank)));
    hosts_.push_back(found.at("host").get<std::string>());
    versions.push_back(found.at("version").get<std::string>());
  }
  if (store_->add("read", 1) == size_) {
    store_->set("all_read", "1");
  }
  if (rank_ == 0) {  // it may keep the store: it goes on when all have read
    wait_for("all_read", timeout, "a rank appeared and was not heard of again");
  }
  for (int rank = 1; rank < size_; ++rank) {
    check(versions[rank] == versions[0], "{}: expected version {} as {} has, found {}",
          name_of(rank), versions[0], name_of(0), versions[rank]);
  }
}

/// The transfer that `begin` begins.
std::unique_ptr<Transfer> ProcessGroup::post(
    int peer, const std::function<c10::intrusive_ptr<c10d::Work>()>& begin) {
  {
    const std::lock_guard lock(mutex_);
    if (!lost_.empty()) {
      throw RankLost(lost_);
    }
    try {
      return std::make_unique<Message>(*this, peer, begin());
    } catch (const std::exception&) {  // the connection is broken already
    }
  }
  connection_broke(peer);
}

std::unique_ptr<Transfer> ProcessGroup::send(int to, Channel channel, const void* data,
                                             int64_t bytes) {
  std::vector<at::Tensor> tensors{bytes_at(data, bytes)};
  return post(to, [&] { return gloo_->send(tensors, to, static_cast<int>(channel)); });
}

std::unique_ptr<Transfer> ProcessGroup::receive(int from, Channel channel, void* data,
                                                int64_t bytes) {
  std::vector<at::Tensor> tensors{bytes_at(data, bytes)};
  return post(from, [&] { return gloo_->recv(tensors, from, static_cast<int>(channel)); });
}

void ProcessGroup::connection_broke(int peer) {
  lose(fmt::format("{} is lost: its connection broke", name_of(peer)));
  const std::lock_guard lock(mutex_);
  throw RankLost(lost_);
}

/// Leaves `reason` for all ranks; returns when the job is lost here too.
void ProcessGroup::lose(const std::string& reason) {
  signs_->leave_reason(reason);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !lost_.empty(); });
}

/// Makes all transfers throw.
void ProcessGroup::end(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  lost_ = reason + "; run the same command again to continue";
  for (c10d::Work* work : pending_) {
    work->abort();
  }
  changed_.notify_all();
}

void ProcessGroup::abandon(const std::string& reason) {
  lose(fmt::format("{}: {}", name_of(rank_), reason));
}

}  // namespace

std::unique_ptr<Ranks> join_job(const JobPlace& place, const std::string& version,
                                const JoinOptions& options) {
  FLAGS_caffe2_log_level = 3;  // c10d's own account of a lost rank, with stacks; ours is one line
  std::signal(SIGPIPE, SIG_IGN);  // Gloo takes a broken connection as an error of the write
  return std::make_unique<ProcessGroup>(place, version, options);
}

}  // namespace blockptq
