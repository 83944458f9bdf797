// Which tokens of the texts an MLP sees, in the float model and in the quantized model.
//
// Shapes: N tokens of a text, T tokens of a slice, D hidden, E experts, K experts per token.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "calibrate/mlp_unit.h"
#include "nn/router.h"

namespace blockptq {

/// One text in front of the feed-forward half of a block.
struct FeedForwardText {
  at::Tensor float_ND;  ///< residual streams
  at::Tensor quant_ND;
  at::Tensor float_out_ND;  ///< what the MLPs add to them
  at::Tensor quant_out_ND;
  nn::Routing float_routing;  ///< undefined tensors in a dense block
  nn::Routing quant_routing;
  bool calibrate = true;
};

/// Tokens of one text that go through an MLP together.
struct TokenRows {
  size_t text = 0;
  at::Tensor tokens_T;  ///< int64
  at::Tensor
      float_weight_T;  ///< fp32, 0: the float model does not send the token here; undefined: 1
  at::Tensor quant_weight_T;
};

/// All tokens, in slices.
std::vector<TokenRows> all_rows(const std::vector<FeedForwardText>& texts, int64_t slice_tokens);

/// The tokens that either model sends to `expert`, in slices.
std::vector<TokenRows> expert_rows(const std::vector<FeedForwardText>& texts, int64_t expert,
                                   int64_t slice_tokens);

/// The weight of the norm in front of the MLPs, in both models.
struct NormWeights {
  at::Tensor float_D;
  at::Tensor quant_D;
};

/// The normalised states of `rows`; they must outlive the source.
TokenSource token_source(const std::vector<FeedForwardText>& texts,
                         const std::vector<TokenRows>& rows, const NormWeights& norm, double eps);

/// Adds an MLP's outputs to what the texts' residual streams get.
TakeOutputs add_outputs(std::vector<FeedForwardText>& texts, const std::vector<TokenRows>& rows);

}  // namespace blockptq
