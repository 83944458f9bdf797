#include "eval/head.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "kernels/cross_entropy.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

constexpr int64_t kTokensPerTile = 1024;

/// Statistics of the vocabulary seen so far, and the logit of the target once its tile has passed.
struct Losses {
  std::vector<kernels::SoftmaxStats> stats;
  std::vector<double> target_logits;
};

/// Adds the logits of tokens [begin, begin + rows) for vocabulary ids [first, first + width).
void accumulate(const at::Tensor& logits_NV, int64_t begin, int64_t first, const int32_t* targets,
                Losses& losses) {
  const at::Tensor host = logits_NV.cpu().contiguous();
  const int64_t width = host.size(1);
  const auto type = float_type(host.scalar_type());
  const auto* data = static_cast<const std::byte*>(host.const_data_ptr());
  const int64_t row_bytes = width * kernels::element_size(type);
  at::parallel_for(0, host.size(0), 16, [&](int64_t row_begin, int64_t row_end) {
    kernels::accumulate_softmax(data + row_begin * row_bytes, type, row_end - row_begin, width,
                                width, &losses.stats[begin + row_begin]);
  });
  for (int64_t row = 0; row < host.size(0); ++row) {
    const int64_t column = targets[begin + row] - first;
    if (targets[begin + row] >= 0 && column >= 0 && column < width) {
      losses.target_logits[begin + row] = host[row][column].item<double>();
    }
  }
}

}  // namespace

at::Tensor target_losses(PieceStream& stream, int64_t pieces, const at::Tensor& states_ND,
                         const at::Tensor& targets_N) {
  const int64_t tokens = states_ND.size(0);
  const auto* targets = targets_N.const_data_ptr<int32_t>();
  Losses losses{std::vector<kernels::SoftmaxStats>(tokens), std::vector<double>(tokens)};
  int64_t first = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    const Piece piece = stream.next();
    const at::Tensor& head_VD = piece.only();
    for (int64_t begin = 0; begin < tokens; begin += kTokensPerTile) {
      check_stop();
      const int64_t end = std::min(begin + kTokensPerTile, tokens);
      accumulate(at::linear(states_ND.slice(0, begin, end), head_VD), begin, first, targets,
                 losses);
    }
    first += head_VD.size(0);
  }
  at::Tensor result = at::zeros({tokens}, at::kDouble);
  auto* loss = result.mutable_data_ptr<double>();
  for (int64_t token = 0; token < tokens; ++token) {
    const kernels::SoftmaxStats& stats = losses.stats[token];
    loss[token] =
        targets[token] < 0 ? 0.0 : stats.max + std::log(stats.sum) - losses.target_logits[token];
  }
  return result;
}

}  // namespace blockptq
