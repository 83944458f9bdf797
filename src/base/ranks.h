// The ranks of a job: processes on one or more hosts, or devices of one process, that share its
// work.
//
// An implementation only sends bytes from one rank to another; what several ranks do together is
// made of that, below. A job of one rank (`alone`) sends nothing.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/json.h"

namespace blockptq {

/// Another rank of the job has failed or does not answer; what() names it and says what to do.
class RankLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Messages between two ranks arrive in the order of sending, on each channel for itself; threads
/// that send at the same time use channels of their own.
enum class Channel { control, weights, reference_weights, states, outputs };

/// A message on its way. Its memory must stay until `wait` has returned or the transfer is gone.
class Transfer {
 public:
  Transfer() = default;
  virtual ~Transfer() = default;
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  /// Until the bytes are sent, or have arrived. Throws RankLost.
  virtual void wait() = 0;
};

class Ranks {
 public:
  Ranks() = default;
  virtual ~Ranks() = default;
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Begins to send; `bytes` > 0. The receiver must expect as many.
  virtual std::unique_ptr<Transfer> send(int to, Channel channel, const void* data,
                                         int64_t bytes) = 0;
  virtual std::unique_ptr<Transfer> receive(int from, Channel channel, void* data,
                                            int64_t bytes) = 0;
  /// This rank gives up: its transfers, those to come too, throw RankLost with `reason`, and so do
  /// those of all others. Of several reasons the first one counts. Callable on any thread.
  virtual void abandon(const std::string& reason) = 0;

  bool shared() const { return size() > 1; }
  /// Whether this rank does the `index`-th piece of work of several alike.
  bool does(int64_t index) const { return index % size() == rank(); }
};

/// A job of one rank.
Ranks& alone();

/// The bytes of `root` come to all.
void broadcast(Ranks& ranks, Channel channel, void* data, int64_t bytes, int root);
void broadcast(Ranks& ranks, std::string& text, int root);
/// What every rank says, by rank.
std::vector<std::string> gather(Ranks& ranks, const std::string& text);
/// A number of every rank, by rank.
std::vector<int64_t> gather_numbers(Ranks& ranks, int64_t value);
/// Waits for all.
void meet(Ranks& ranks);
/// Sum of what every rank says.
int64_t sum(Ranks& ranks, int64_t value);
int64_t maximum(Ranks& ranks, int64_t value);

/// Error on every rank, with the same message, unless all give the same values: the first key that
/// differs is named.
void check_same_job(Ranks& ranks, const Json& description);

/// Tells the other ranks when an exception leaves the scope, so that none of them waits for ever.
class AbandonOnError {
 public:
  explicit AbandonOnError(Ranks& ranks) : ranks_(ranks) {}
  ~AbandonOnError();
  AbandonOnError(const AbandonOnError&) = delete;
  AbandonOnError& operator=(const AbandonOnError&) = delete;

 private:
  Ranks& ranks_;
  int before_ = std::uncaught_exceptions();
};

}  // namespace blockptq
