#include "nn/attend.h"

#include <algorithm>
#include <limits>

namespace blockptq::nn {
namespace {

/// Queries [begin, end) against the keys [0, end): no later key is visible to any of them.
at::Tensor attend_tile(const at::Tensor& q_HQK, const at::Tensor& k_HSK, const at::Tensor& v_HSV,
                       const at::Tensor& hidden_QS, double scale) {
  at::Tensor scores_HQS = at::bmm(q_HQK, k_HSK.transpose(1, 2)).to(at::kFloat);
  scores_HQS.mul_(scale).masked_fill_(hidden_QS, -std::numeric_limits<float>::infinity());
  return at::bmm(at::softmax(scores_HQS, -1).to(v_HSV.scalar_type()), v_HSV);
}

/// True where a query of [begin, end) must not see a key of [0, end).
at::Tensor hidden_keys(const at::Tensor& selected_TT, int64_t begin, int64_t end,
                       at::Device device) {
  if (selected_TT.defined()) {
    return selected_TT.slice(0, begin, end).slice(1, 0, end).logical_not();
  }
  const auto options = at::TensorOptions(at::kLong).device(device);
  return at::arange(end, options).unsqueeze(0) > at::arange(begin, end, options).unsqueeze(1);
}

}  // namespace

at::Tensor attend(const at::Tensor& q_HTK, const at::Tensor& k_HTK, const at::Tensor& v_HTV,
                  const at::Tensor& selected_TT, double scale, int64_t workspace_bytes) {
  const int64_t heads = q_HTK.size(0);
  const int64_t tokens = q_HTK.size(1);
  // Scores live about three times: as the product, in fp32 and as probabilities.
  const int64_t row_bytes = heads * tokens * 12;
  const int64_t tile = std::clamp<int64_t>(workspace_bytes / row_bytes, 1, tokens);
  at::Tensor out_THV = at::empty({tokens, heads, v_HTV.size(2)}, v_HTV.options());
  for (int64_t begin = 0; begin < tokens; begin += tile) {
    const int64_t end = std::min(begin + tile, tokens);
    const at::Tensor hidden = hidden_keys(selected_TT, begin, end, q_HTK.device());
    const at::Tensor tile_HQV = attend_tile(q_HTK.slice(1, begin, end), k_HTK.slice(1, 0, end),
                                            v_HTV.slice(1, 0, end), hidden, scale);
    out_THV.slice(0, begin, end).copy_(tile_HQV.transpose(0, 1));
  }
  return out_THV;
}

}  // namespace blockptq::nn
