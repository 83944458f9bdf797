#include "eval/gather_states.h"

#include <ATen/ATen.h>

#include <numeric>
#include <vector>

namespace blockptq {
namespace {

/// One message a rank between `root` and all others: `whole` is in its ranges there.
void move_ranges(Ranks& ranks, const at::Tensor& whole, const at::Tensor& part, int root,
                 bool to_root) {
  const std::vector<int64_t> sizes = gather_numbers(ranks, part.size(0));
  const auto transfer = [&](int other, const at::Tensor& range, bool sends) {
    const auto bytes = static_cast<int64_t>(range.nbytes());
    if (bytes > 0) {
      (sends ? ranks.send(other, Channel::states, range.const_data_ptr(), bytes)
             : ranks.receive(other, Channel::states, range.mutable_data_ptr(), bytes))
          ->wait();
    }
  };
  if (ranks.rank() != root) {
    transfer(root, part, to_root);
    return;
  }
  const auto ranges = whole.split_with_sizes(sizes);
  for (int rank = 0; rank < ranks.size(); ++rank) {
    if (rank != root) {
      transfer(rank, ranges[rank], !to_root);
    } else if (to_root) {
      ranges[rank].copy_(part);
    } else {
      part.copy_(ranges[rank]);
    }
  }
}

/// Room for the parts of all ranks.
at::Tensor make_whole(Ranks& ranks, const at::Tensor& part) {
  std::vector<int64_t> shape = part.sizes().vec();
  shape.front() = sum(ranks, shape.front());
  return at::empty(shape, part.options().device(at::kCPU));
}

}  // namespace

at::Tensor gather_rows(Ranks& ranks, const at::Tensor& part, int root) {
  const at::Tensor host = part.cpu().contiguous();
  if (!ranks.shared()) {
    return host;
  }
  const at::Tensor whole = make_whole(ranks, host);
  move_ranges(ranks, whole, host, root, /*to_root=*/true);
  return ranks.rank() == root ? whole : at::Tensor();
}

at::Tensor gather_rows(Ranks& ranks, const at::Tensor& part) {
  if (!ranks.shared()) {
    return part.cpu().contiguous();
  }
  at::Tensor whole = make_whole(ranks, part);
  if (const at::Tensor gathered = gather_rows(ranks, part, 0); gathered.defined()) {
    whole = gathered;
  }
  broadcast(ranks, Channel::states, whole.mutable_data_ptr(), static_cast<int64_t>(whole.nbytes()),
            0);
  return whole;
}

void scatter_rows(Ranks& ranks, const at::Tensor& whole, at::Tensor& part, int root) {
  if (!ranks.shared()) {
    part.copy_(whole);
    return;
  }
  move_ranges(ranks, whole, part, root, /*to_root=*/false);
}

at::Tensor own_rows(Ranks& ranks, const at::Tensor& whole, at::IntArrayRef own, at::ScalarType type,
                    int root) {
  if (!ranks.shared()) {
    return whole;
  }
  at::Tensor part = at::empty(own, at::TensorOptions(type));
  scatter_rows(ranks, whole, part, root);
  return part;
}

}  // namespace blockptq
