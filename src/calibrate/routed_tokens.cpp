#include "calibrate/routed_tokens.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "nn/norm.h"
#include "nn/scatter_add.h"

namespace blockptq {
namespace {

/// Router weight of `expert` for every token, 0 where it is not among the token's experts: fp32
/// [N].
at::Tensor expert_weights(const nn::Routing& routing, int64_t expert) {
  return (routing.weights_TK * routing.experts_TK.eq(expert)).sum(-1);
}

void append_slices(size_t text, const at::Tensor& tokens_N, const at::Tensor& float_weight_N,
                   const at::Tensor& quant_weight_N, int64_t slice_tokens,
                   std::vector<TokenRows>& rows) {
  for (int64_t begin = 0; begin < tokens_N.size(0); begin += slice_tokens) {
    const int64_t end = std::min(begin + slice_tokens, tokens_N.size(0));
    const auto part = [&](const at::Tensor& x) {
      return x.defined() ? x.slice(0, begin, end) : at::Tensor();
    };
    rows.push_back({text, part(tokens_N), part(float_weight_N), part(quant_weight_N)});
  }
}

}  // namespace

std::vector<TokenRows> all_rows(const std::vector<FeedForwardText>& texts, int64_t slice_tokens) {
  std::vector<TokenRows> rows;
  for (size_t text = 0; text < texts.size(); ++text) {
    const at::Tensor& states_ND = texts[text].float_ND;
    const at::Tensor tokens = at::arange(states_ND.size(0), states_ND.options().dtype(at::kLong));
    append_slices(text, tokens, {}, {}, slice_tokens, rows);
  }
  return rows;
}

std::vector<TokenRows> expert_rows(const std::vector<FeedForwardText>& texts, int64_t expert,
                                   int64_t slice_tokens) {
  std::vector<TokenRows> rows;
  for (size_t text = 0; text < texts.size(); ++text) {
    const at::Tensor float_N = expert_weights(texts[text].float_routing, expert);
    const at::Tensor quant_N = expert_weights(texts[text].quant_routing, expert);
    const at::Tensor tokens = at::logical_or(float_N.ne(0), quant_N.ne(0)).nonzero().flatten();
    append_slices(text, tokens, float_N.index_select(0, tokens), quant_N.index_select(0, tokens),
                  slice_tokens, rows);
  }
  return rows;
}

TokenSource token_source(const std::vector<FeedForwardText>& texts,
                         const std::vector<TokenRows>& rows, const NormWeights& norm, double eps) {
  int64_t tokens = 0;
  for (const TokenRows& row : rows) {
    tokens += texts[row.text].calibrate ? row.tokens_T.size(0) : 0;
  }
  return {static_cast<int64_t>(rows.size()),
          [&texts, &rows, norm, eps](int64_t index) {
            const TokenRows& row = rows[index];
            const FeedForwardText& text = texts[row.text];
            return TokenSlice{nn::gather_rms_norm(text.float_ND, row.tokens_T, norm.float_D, eps),
                              nn::gather_rms_norm(text.quant_ND, row.tokens_T, norm.quant_D, eps),
                              row.quant_weight_T, text.calibrate};
          },
          tokens};
}

TakeOutputs add_outputs(std::vector<FeedForwardText>& texts, const std::vector<TokenRows>& rows) {
  return [&texts, &rows](int64_t index, const at::Tensor& float_TD, const at::Tensor& quant_TD) {
    const TokenRows& row = rows[index];
    FeedForwardText& text = texts[row.text];
    const auto weights = [&](const at::Tensor& weight_T) {
      return weight_T.defined()
                 ? weight_T
                 : at::ones({row.tokens_T.size(0)}, float_TD.options().dtype(at::kFloat));
    };
    nn::scatter_add(text.float_out_ND, row.tokens_T, weights(row.float_weight_T), float_TD);
    nn::scatter_add(text.quant_out_ND, row.tokens_T, weights(row.quant_weight_T), quant_TD);
  };
}

}  // namespace blockptq
