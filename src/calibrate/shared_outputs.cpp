#include "calibrate/shared_outputs.h"

#include <ATen/ATen.h>

#include <utility>

#include "base/system.h"

namespace blockptq {

SharedOutputs::SharedOutputs(Ranks& ranks, std::vector<FeedForwardText>& texts,
                             std::function<void(const std::string& unit)> added)
    : ranks_(ranks), texts_(texts), added_(std::move(added)) {}

void SharedOutputs::add(const std::string& unit, int owner, const std::vector<TokenRows>& rows,
                        const std::function<void(const TakeOutputs& take)>& run) {
  if (!ranks_.shared()) {
    run(add_outputs(texts_, rows));
    added_(unit);
    return;
  }
  Entry& entry = waiting_.emplace_back();
  entry.unit = unit;
  entry.owner = owner;
  entry.rows = rows;
  if (owner == ranks_.rank()) {
    entry.outputs.resize(rows.size());
    run([&](int64_t index, const at::Tensor& float_TD, const at::Tensor& quant_TD) {
      entry.outputs[index] = {float_TD.cpu().contiguous(), quant_TD.cpu().contiguous()};
    });
    const auto send = [&](int to, const at::Tensor& y) {
      entry.sends.push_back(
          ranks_.send(to, Channel::outputs, y.const_data_ptr(), static_cast<int64_t>(y.nbytes())));
    };
    for (int step = 1; step < ranks_.size(); ++step) {
      const int to = (ranks_.rank() + step) % ranks_.size();
      for (const Entry::Slice& slice : entry.outputs) {
        send(to, slice.float_TD);
        send(to, slice.quant_TD);
      }
    }
  }
  drain(static_cast<size_t>(kTurnsAhead * ranks_.size()));
}

/// Adds outputs until no more than `keep` units wait.
void SharedOutputs::drain(size_t keep) {
  while (waiting_.size() > keep) {
    check_stop();
    Entry& entry = waiting_.front();
    const TakeOutputs take = add_outputs(texts_, entry.rows);
    for (size_t i = 0; i < entry.rows.size(); ++i) {
      const at::Tensor& like = texts_[entry.rows[i].text].float_out_ND;
      Entry::Slice slice;
      if (entry.owner == ranks_.rank()) {
        slice = entry.outputs[i];
      } else {
        const std::vector<int64_t> shape{entry.rows[i].tokens_T.size(0), like.size(1)};
        for (at::Tensor* y : {&slice.float_TD, &slice.quant_TD}) {
          *y = at::empty(shape, like.options().device(at::kCPU));
          ranks_
              .receive(entry.owner, Channel::outputs, y->mutable_data_ptr(),
                       static_cast<int64_t>(y->nbytes()))
              ->wait();
        }
      }
      take(static_cast<int64_t>(i), slice.float_TD.to(like.device()),
           slice.quant_TD.to(like.device()));
    }
    for (const auto& transfer : entry.sends) {
      transfer->wait();
    }
    added_(entry.unit);
    waiting_.pop_front();
  }
}

}  // namespace blockptq
