#include "nn/attend.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "kernels/masked_softmax.h"
#include "nn/fused.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::nn {
namespace {

/// True where a query of [begin, end) must not see a key of [0, end).
at::Tensor hidden_keys(const at::Tensor& selected_TT, int64_t begin, int64_t end,
                       at::Device device) {
  if (selected_TT.defined()) {
    return selected_TT.slice(0, begin, end).slice(1, 0, end).logical_not();
  }
  const auto options = at::TensorOptions(at::kLong).device(device);
  return at::arange(end, options).unsqueeze(0) > at::arange(begin, end, options).unsqueeze(1);
}

at::Tensor composed_softmax(const at::Tensor& scores_HQS, const at::Tensor& selected_TT,
                            int64_t begin, double scale) {
  const at::Tensor hidden_QS =
      hidden_keys(selected_TT, begin, begin + scores_HQS.size(1), scores_HQS.device());
  const at::Tensor masked = (scores_HQS.to(at::kFloat) * scale)
                                .masked_fill(hidden_QS, -std::numeric_limits<float>::infinity());
  return at::softmax(masked, -1).to(scores_HQS.scalar_type());
}

/// Probabilities in place of scores_HQS, the scores of queries from `begin` on against all keys up
/// to the last of them.
at::Tensor softmax_over_visible(at::Tensor scores_HQS, const at::Tensor& selected_TT, int64_t begin,
                                double scale) {
  if (!can_fuse(scores_HQS)) {
    return composed_softmax(scores_HQS, selected_TT, begin, scale);
  }
  const int64_t queries = scores_HQS.size(1);
  const int64_t keys = scores_HQS.size(2);
  const auto type = float_type(scores_HQS.scalar_type());
  const int64_t bytes = kernels::element_size(type);
  void* scores = scores_HQS.mutable_data_ptr();
  const auto* selected = selected_TT.defined()
                             ? reinterpret_cast<const uint8_t*>(selected_TT.const_data_ptr<bool>())
                             : nullptr;
  parallel_rows(scores_HQS.size(0) * queries, keys, [&](int64_t row, int64_t row_end) {
    while (row < row_end) {  // within one head, the queries are consecutive
      const int64_t query = row % queries;
      const int64_t count = std::min(row_end - row, queries - query);
      kernels::Visibility visible;
      visible.first_query = begin + query;
      if (selected != nullptr) {
        visible.stride = selected_TT.stride(0);
        visible.bytes = selected + (begin + query) * visible.stride;
      }
      std::byte* rows = at_element(scores, row * keys, bytes);
      kernels::masked_softmax(rows, type, 1, count, keys, static_cast<float>(scale), visible, type,
                              rows);
      row += count;
    }
  });
  return scores_HQS;
}

}  // namespace

at::Tensor attend(const at::Tensor& q_HTK, const at::Tensor& k_GTK, const at::Tensor& v_GTV,
                  const at::Tensor& selected_TT, double scale, int64_t workspace_bytes) {
  const int64_t heads = q_HTK.size(0);
  const int64_t groups = k_GTK.size(0);
  const int64_t tokens = q_HTK.size(1);
  const int64_t row_bytes = heads * tokens * static_cast<int64_t>(q_HTK.element_size());
  const int64_t tile = std::clamp<int64_t>(workspace_bytes / row_bytes, 1, tokens);
  std::vector<at::Tensor> tiles;
  for (int64_t begin = 0; begin < tokens; begin += tile) {
    const int64_t end = std::min(begin + tile, tokens);
    // The queries of the heads of a group are rows of one product (X: heads of a group x queries).
    const at::Tensor q_GXK = q_HTK.slice(1, begin, end).reshape({groups, -1, q_HTK.size(2)});
    const at::Tensor scores_GXS = at::bmm(q_GXK, k_GTK.slice(1, 0, end).transpose(1, 2));
    const at::Tensor p_HQS =
        softmax_over_visible(scores_GXS.view({heads, end - begin, end}), selected_TT, begin, scale);
    tiles.push_back(
        at::bmm(p_HQS.view_as(scores_GXS), v_GTV.slice(1, 0, end)).view({heads, end - begin, -1}));
  }
  return at::cat(tiles, 1).transpose(0, 1);
}

}  // namespace blockptq::nn
