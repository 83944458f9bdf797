// What an expert adds to the tokens routed to it.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq::nn {

/// out_ND[rows_T[t], :] += weights_T[t] * y_TD[t, :]. rows_T (int64) are distinct; weights_T: fp32.
/// No gradients.
void scatter_add(at::Tensor& out_ND, const at::Tensor& rows_T, const at::Tensor& weights_T,
                 const at::Tensor& y_TD);

}  // namespace blockptq::nn
