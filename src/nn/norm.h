// Normalisation layers. Statistics and products in fp32, result in the type of x.
#pragma once

#include <ATen/core/Tensor.h>

namespace blockptq::nn {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467). weight_D: fp32.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight_D, double eps);

/// rms_norm of the rows `rows_T` (int64) of x_ND -> [T, D].
at::Tensor gather_rms_norm(const at::Tensor& x_ND, const at::Tensor& rows_T,
                           const at::Tensor& weight_D, double eps);

/// (x - mean) / sqrt(var + eps) * weight + bias over the last dimension (arXiv 1607.06450).
/// weight_D, bias_D: fp32.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps);

}  // namespace blockptq::nn
