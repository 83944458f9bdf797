#include "calibrate/observe.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/system.h"
#include "exec/record_exec.h"

namespace blockptq {
namespace {

/// The weights of each input that `record` has seen, by number among `weights`.
std::vector<std::vector<size_t>> same_inputs(const std::vector<Weight>& weights,
                                             const RecordExec& record) {
  std::vector<std::vector<size_t>> groups;
  std::map<const void*, size_t> group_of;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto input = record.inputs().find(weights[i].name);
    if (input == record.inputs().end()) {
      continue;
    }
    const auto [found, fresh] = group_of.try_emplace(input->second.const_data_ptr(), groups.size());
    if (fresh) {
      groups.emplace_back();
    }
    groups[found->second].push_back(i);
  }
  return groups;
}

/// As rank 0 has recorded it.
std::vector<ObservedInput> group_by_input(const CalibrationContext& context,
                                          const std::vector<Weight>& weights,
                                          const RecordExec& record, Ranks& ranks) {
  std::string text = Json(same_inputs(weights, record)).dump();
  broadcast(ranks, text, 0);
  std::vector<ObservedInput> groups;
  int64_t matrices = 0;  // so far: a rank each
  for (const auto& members : Json::parse(text).get<std::vector<std::vector<size_t>>>()) {
    std::vector<Weight> seeing;
    seeing.reserve(members.size());
    for (const size_t i : members) {
      seeing.push_back(weights[i]);
    }
    const bool cross = needs_cross_sums(context, seeing);
    groups.push_back({std::move(seeing), SharedStatistics(ranks, matrices, cross)});
    matrices += cross ? 2 : 1;
  }
  return groups;
}

/// One sequence of each rank.
class Turn {
 public:
  Turn(const CalibrationContext& context, const RecordExec& float_record,
       const RecordExec& quant_record, std::vector<ObservedInput>& groups, Ranks& ranks)
      : context_(context),
        float_record_(float_record),
        quant_record_(quant_record),
        groups_(groups),
        ranks_(ranks) {}

  /// Brings the inputs of the sequences, of so many tokens by rank, to the ranks that sum them up;
  /// these take them in the order of the sequences.
  void add(const std::vector<int64_t>& tokens) {
    if (ranks_.rank() < static_cast<int>(tokens.size())) {
      send();
    }
    for (int from = 0; from < static_cast<int>(tokens.size()); ++from) {
      for (ObservedInput& group : groups_) {
        if (group.sum.sums(ranks_.rank())) {
          const auto [quant_LI, float_LI] =
              from == ranks_.rank() ? own(group) : receive(group, from, tokens[from]);
          group.sum.add(float_LI, quant_LI, {});
        }
      }
    }
    for (const auto& transfer : sends_) {
      transfer->wait();
    }
  }

 private:
  using Inputs = std::pair<at::Tensor, at::Tensor>;  ///< in the quantized, in the float model

  Inputs own(const ObservedInput& group) const {
    const std::string& name = group.weights.front().name;
    return {quant_record_.inputs().at(name), float_record_.inputs().at(name)};
  }

  void send() {
    for (const ObservedInput& group : groups_) {
      const auto [quant_LI, float_LI] = own(group);
      send(quant_LI, [&](int to) { return group.sum.sums(to); });
      send(float_LI, [&](int to) { return group.sum.sums_cross(to); });
    }
  }

  void send(const at::Tensor& x_LI, const std::function<bool(int rank)>& wants) {
    BPTQ_ASSERT(x_LI.scalar_type() == context_.type);
    const at::Tensor& host = sent_.emplace_back(x_LI.cpu().contiguous());
    for (int step = 1; step < ranks_.size(); ++step) {
      const int to = (ranks_.rank() + step) % ranks_.size();
      if (wants(to)) {
        sends_.push_back(ranks_.send(to, Channel::states, host.const_data_ptr(),
                                     static_cast<int64_t>(host.nbytes())));
      }
    }
  }

  Inputs receive(const ObservedInput& group, int from, int64_t tokens) {
    const at::Tensor& weight_OI = group.weights.front().value;
    const auto next = [&] {
      const at::Tensor host = at::empty({tokens, weight_OI.size(1)}, context_.type);
      ranks_
          .receive(from, Channel::states, host.mutable_data_ptr(),
                   static_cast<int64_t>(host.nbytes()))
          ->wait();
      return host.to(weight_OI.device());
    };
    const at::Tensor quant_LI = next();
    return {quant_LI, group.sum.sums_cross(ranks_.rank()) ? next() : at::Tensor()};
  }

  const CalibrationContext& context_;
  const RecordExec& float_record_;
  const RecordExec& quant_record_;
  std::vector<ObservedInput>& groups_;
  Ranks& ranks_;
  std::vector<at::Tensor> sent_;
  std::vector<std::unique_ptr<Transfer>> sends_;
};

}  // namespace

std::vector<ObservedInput> observe(const CalibrationContext& context,
                                   const FakeQuantExec& quant_exec, const NormedAttention& exact,
                                   const NormedAttention& unrounded,
                                   const SequenceSource& sequences,
                                   const std::vector<Weight>& targets, AttentionOutputs& outputs,
                                   Ranks& ranks) {
  RecordExec float_record(context.float_exec);
  RecordExec quant_record(quant_exec);
  std::vector<ObservedInput> groups;
  outputs.float_LD.resize(static_cast<size_t>(sequences.sequences));
  for (int64_t begin = 0; begin < sequences.sequences; begin += ranks.size()) {
    check_stop();
    const int64_t end = std::min<int64_t>(begin + ranks.size(), sequences.sequences);
    std::vector<int64_t> tokens;
    for (int64_t c = begin; c < end; ++c) {
      tokens.push_back(sequences.quant_LD(c).size(0));
      if (ranks.does(c)) {
        outputs.float_LD[c] = exact.forward(float_record, sequences.float_LD(c));
        unrounded.forward(quant_record, sequences.quant_LD(c));
      }
    }
    if (begin == 0) {
      groups = group_by_input(context, targets, quant_record, ranks);
    }
    Turn(context, float_record, quant_record, groups, ranks).add(tokens);
  }
  return groups;
}

}  // namespace blockptq
