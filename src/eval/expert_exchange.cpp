#include "eval/expert_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/system.h"

namespace blockptq {
namespace {

/// Tokens of every rank for every expert.
std::vector<std::vector<int64_t>> gather_counts(Ranks& ranks, const std::vector<int64_t>& own) {
  std::vector<std::vector<int64_t>> counts(static_cast<size_t>(ranks.size()), own);
  for (int rank = 0; rank < ranks.size(); ++rank) {
    broadcast(ranks, Channel::states, counts[rank].data(),
              static_cast<int64_t>(own.size() * sizeof(int64_t)), rank);
  }
  return counts;
}

/// Experts [begin, end) of all ranks.
class Round {
 public:
  Round(Ranks& ranks, const std::vector<std::vector<int64_t>>& counts, int64_t begin, int64_t end,
        at::TensorOptions host, int64_t hidden)
      : ranks_(ranks), counts_(counts), begin_(begin), end_(end), host_(host), hidden_(hidden) {}

  void run(const ExpertWork& work) {
    send_tokens(work);
    const std::vector<std::vector<at::Tensor>> outputs = compute(work);
    send_outputs(outputs, work);
  }

 private:
  bool holds(int rank, int64_t expert) const { return expert % ranks_.size() == rank; }
  /// Rows that `from` has for the experts of `to`.
  int64_t rows(int from, int to) const;
  at::Tensor empty(int64_t rows) const { return at::empty({rows, hidden_}, host_); }
  void post(const std::vector<at::Tensor>& out, const std::vector<at::Tensor>& in);
  void send_tokens(const ExpertWork& work);
  std::vector<std::vector<at::Tensor>> compute(const ExpertWork& work);
  void send_outputs(const std::vector<std::vector<at::Tensor>>& outputs, const ExpertWork& work);

  Ranks& ranks_;
  const std::vector<std::vector<int64_t>>& counts_;
  int64_t begin_;
  int64_t end_;
  at::TensorOptions host_;
  int64_t hidden_;
  std::vector<at::Tensor> x_in_;  ///< by the rank that they are from: rows of this rank's experts
};

int64_t Round::rows(int from, int to) const {
  int64_t count = 0;
  for (int64_t e = begin_; e < end_; ++e) {
    count += holds(to, e) ? counts_[from][e] : 0;
  }
  return count;
}

/// To each other rank its part of `out`, from each its part of `in`.
void Round::post(const std::vector<at::Tensor>& out, const std::vector<at::Tensor>& in) {
  std::vector<std::unique_ptr<Transfer>> transfers;
  for (int step = 1; step < ranks_.size(); ++step) {
    const int to = (ranks_.rank() + step) % ranks_.size();
    const int from = (ranks_.rank() - step + ranks_.size()) % ranks_.size();
    if (in[from].numel() > 0) {
      transfers.push_back(ranks_.receive(from, Channel::states, in[from].mutable_data_ptr(),
                                         static_cast<int64_t>(in[from].nbytes())));
    }
    if (out[to].numel() > 0) {
      transfers.push_back(ranks_.send(to, Channel::states, out[to].const_data_ptr(),
                                      static_cast<int64_t>(out[to].nbytes())));
    }
  }
  for (const auto& transfer : transfers) {
    transfer->wait();
  }
}

void Round::send_tokens(const ExpertWork& work) {
  std::vector<at::Tensor> out;
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    out.push_back(empty(rows(ranks_.rank(), rank)));
    int64_t row = 0;
    for (int64_t e = begin_; e < end_; ++e) {
      const int64_t count = counts_[ranks_.rank()][e];
      if (holds(rank, e) && count > 0) {
        out[rank].narrow(0, row, count).copy_(work.tokens(e));
        row += count;
      }
    }
    x_in_.push_back(rank == ranks_.rank() ? out[rank] : empty(rows(rank, ranks_.rank())));
  }
  post(out, x_in_);
}

/// By the rank whose tokens they are, by expert of this rank.
std::vector<std::vector<at::Tensor>> Round::compute(const ExpertWork& work) {
  std::vector<std::vector<at::Tensor>> outputs(static_cast<size_t>(ranks_.size()));
  std::vector<int64_t> taken(static_cast<size_t>(ranks_.size()));
  for (int64_t e = begin_; e < end_; ++e) {
    if (!holds(ranks_.rank(), e)) {
      continue;
    }
    check_stop();
    std::vector<at::Tensor> parts;
    std::vector<int64_t> sizes;
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      sizes.push_back(counts_[rank][e]);
      parts.push_back(x_in_[rank].narrow(0, taken[rank], sizes.back()));
      taken[rank] += sizes.back();
    }
    const auto y = work.forward(e, at::cat(parts)).to(host_.device()).split_with_sizes(sizes);
    for (int rank = 0; rank < ranks_.size(); ++rank) {
      outputs[rank].push_back(y[rank]);
    }
  }
  x_in_.clear();
  return outputs;
}

void Round::send_outputs(const std::vector<std::vector<at::Tensor>>& outputs,
                         const ExpertWork& work) {
  std::vector<at::Tensor> out;
  std::vector<at::Tensor> in;
  for (int rank = 0; rank < ranks_.size(); ++rank) {
    out.push_back(outputs[rank].empty() ? empty(0) : at::cat(outputs[rank]));
    in.push_back(rank == ranks_.rank() ? out[rank] : empty(rows(ranks_.rank(), rank)));
  }
  post(out, in);
  std::vector<int64_t> taken(static_cast<size_t>(ranks_.size()));
  for (int64_t e = begin_; e < end_; ++e) {
    const auto holder = static_cast<size_t>(e % ranks_.size());
    const int64_t count = counts_[ranks_.rank()][e];
    work.take(e, in[holder].narrow(0, taken[holder], count));
    taken[holder] += count;
  }
}

/// The end of the round that begins at `begin`: whole turns of the ranks, one at least.
int64_t round_end(const std::vector<std::vector<int64_t>>& counts, int64_t begin,
                  int64_t max_rows) {
  const auto size = static_cast<int64_t>(counts.size());
  const auto experts = static_cast<int64_t>(counts.front().size());
  int64_t total = 0;
  int64_t end = begin;
  while (end < experts) {
    const int64_t next = std::min(end + size, experts);
    for (const auto& counts_E : counts) {
      for (int64_t e = end; e < next; ++e) {
        total += counts_E[e];
      }
    }
    if (end > begin && total > max_rows * size) {
      break;
    }
    end = next;
  }
  return end;
}

}  // namespace

void exchange_experts(Ranks& ranks, const std::vector<int64_t>& counts_E, int64_t hidden,
                      int64_t max_rows, const at::TensorOptions& states, const ExpertWork& work) {
  const auto counts = gather_counts(ranks, counts_E);
  const auto experts = static_cast<int64_t>(counts_E.size());
  for (int64_t begin = 0; begin < experts;) {
    const int64_t end = round_end(counts, begin, max_rows);
    Round(ranks, counts, begin, end, states.device(at::kCPU), hidden).run(work);
    begin = end;
  }
}

}  // namespace blockptq
