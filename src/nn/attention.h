// What a block's attention looks like to the code that streams blocks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "exec/exec.h"

namespace blockptq::nn {

struct AttentionOptions {
  bool dense = false;  ///< every earlier key is visible, whatever an indexer says
  int64_t workspace_bytes = int64_t{256} << 20;  ///< bound of the largest temporaries
};

class Attention {
 public:
  Attention() = default;
  virtual ~Attention() = default;
  Attention(const Attention&) = delete;
  Attention& operator=(const Attention&) = delete;

  /// One sequence from position 0: normalised x_TD -> what is added to the residual stream, [T, D].
  virtual at::Tensor forward(const Exec& exec, const at::Tensor& x_TD,
                             const AttentionOptions& options) const = 0;
};

}  // namespace blockptq::nn
