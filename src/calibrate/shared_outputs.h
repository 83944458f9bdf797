// What the MLPs of a block add to the states, when each rank runs some of them: every rank has the
// states of all texts and adds the outputs of all MLPs in one order, so that the sums are those of
// one rank, to the bit.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/ranks.h"
#include "calibrate/mlp_unit.h"
#include "calibrate/routed_tokens.h"

namespace blockptq {

/// Turns of the ranks that one of them may be ahead of the others; their outputs wait in memory.
constexpr int64_t kTurnsAhead = 2;

class SharedOutputs {
 public:
  /// `added` is called with the name of a unit when its outputs are in `texts` (which outlive
  /// this).
  SharedOutputs(Ranks& ranks, std::vector<FeedForwardText>& texts,
                std::function<void(const std::string& unit)> added);

  /// The next unit in order, on `rows`; its owner calls `run` with what takes its outputs.
  void add(const std::string& unit, int owner, const std::vector<TokenRows>& rows,
           const std::function<void(const TakeOutputs& take)>& run);
  /// Waits until the outputs of all units are in.
  void finish() { drain(0); }

 private:
  /// A unit whose outputs are not added yet.
  struct Entry {
    struct Slice {
      at::Tensor float_TD;
      at::Tensor quant_TD;
    };
    std::string unit;
    int owner = 0;
    std::vector<TokenRows> rows;
    std::vector<Slice> outputs;  ///< of this rank's unit, on the CPU
    std::vector<std::unique_ptr<Transfer>> sends;
  };

  void drain(size_t keep);

  Ranks& ranks_;
  std::vector<FeedForwardText>& texts_;
  std::function<void(const std::string&)> added_;
  std::deque<Entry> waiting_;
};

}  // namespace blockptq
