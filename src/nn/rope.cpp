#include "nn/rope.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/rope.h"
#include "nn/fused.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::nn {
namespace {

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

/// Dimension whose wavelength makes `rotations` turns within the trained context.
double correction_dim(const RopeSpec& spec, double rotations) {
  const double context = spec.yarn->original_max_position_embeddings;
  return static_cast<double>(spec.dim) * std::log(context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(spec.theta));
}

void stretch_yarn(const RopeSpec& spec, std::vector<double>& frequencies) {
  const YarnScaling& yarn = *spec.yarn;
  double low = correction_dim(spec, yarn.beta_fast);
  double high = correction_dim(spec, yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(0.0, low);
  high = std::min(static_cast<double>(spec.dim - 1), high);
  high = high == low ? high + 0.001 : high;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= (1 - ramp) + ramp / yarn.factor;
  }
}

void stretch_llama3(const Llama3Scaling& llama3, std::vector<double>& frequencies) {
  for (double& frequency : frequencies) {
    const double turns =
        llama3.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
    const double kept = std::clamp(
        (turns - llama3.low_freq_factor) / (llama3.high_freq_factor - llama3.low_freq_factor), 0.0,
        1.0);
    frequency *= kept + (1 - kept) / llama3.factor;
  }
}

std::vector<double> inverse_frequencies(const RopeSpec& spec) {
  std::vector<double> frequencies(static_cast<size_t>(spec.dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] =
        std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.dim));
  }
  if (spec.yarn) {
    stretch_yarn(spec, frequencies);
  }
  if (spec.llama3) {
    stretch_llama3(*spec.llama3, frequencies);
  }
  return frequencies;
}

/// What cos and sin are multiplied by.
double magnitude(const RopeSpec& spec) {
  if (!spec.yarn) {
    return 1.0;
  }
  const YarnScaling& yarn = *spec.yarn;
  return yarn.attention_factor.value_or(yarn_mscale(yarn.factor, yarn.mscale) /
                                        yarn_mscale(yarn.factor, yarn.mscale_all_dim));
}

}  // namespace

double RopeSpec::softmax_factor() const {
  if (!yarn || yarn->mscale_all_dim == 0) {
    return 1.0;
  }
  return std::pow(yarn_mscale(yarn->factor, yarn->mscale_all_dim), 2);
}

RopeTable make_rope_table(const RopeSpec& spec, int64_t tokens, at::Device device) {
  const std::vector<double> frequencies = inverse_frequencies(spec);
  // As the published models do: frequencies and angles in fp32.
  const at::Tensor inverse = at::tensor(frequencies, at::kDouble).to(at::kFloat);
  const at::Tensor angles = at::outer(at::arange(tokens, at::kFloat), inverse);
  const double factor = magnitude(spec);
  return {(angles.cos() * factor).to(device), (angles.sin() * factor).to(device)};
}

namespace {

at::Tensor composed_rope(const at::Tensor& x, const RopeTable& table, RopeLayout layout) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor wide = x.to(at::kFloat);
  at::Tensor first;
  at::Tensor second;
  if (layout == RopeLayout::interleaved) {
    const at::Tensor pairs = wide.unflatten(-1, {half, 2});
    first = pairs.select(-1, 0);
    second = pairs.select(-1, 1);
  } else {
    first = wide.slice(-1, 0, half);
    second = wide.slice(-1, half);
  }
  const at::Tensor cos = table.cos.slice(0, 0, x.size(0)).unsqueeze(1);
  const at::Tensor sin = table.sin.slice(0, 0, x.size(0)).unsqueeze(1);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1).to(x.scalar_type());
}

}  // namespace

void rotate_into(const at::Tensor& x_THR, const RopeTable& table, RopeLayout layout,
                 at::Tensor out_THR) {
  if (!can_fuse(x_THR) || x_THR.stride(2) != 1 || out_THR.stride(2) != 1) {
    out_THR.copy_(composed_rope(x_THR, table, layout));
    return;
  }
  const int64_t heads = x_THR.size(1);
  const int64_t dim = x_THR.size(2);
  const auto type = float_type(x_THR.scalar_type());
  const int64_t bytes = kernels::element_size(type);
  const void* in = x_THR.const_data_ptr();
  void* out = out_THR.mutable_data_ptr();
  const auto* cos = table.cos.const_data_ptr<float>();
  const auto* sin = table.sin.const_data_ptr<float>();
  parallel_rows(x_THR.size(0), heads * dim, [&](int64_t begin, int64_t end) {
    kernels::rotate(at_element(in, begin * x_THR.stride(0), bytes),
                    {x_THR.stride(0), x_THR.stride(1)}, type, end - begin, heads, dim,
                    cos + begin * dim / 2, sin + begin * dim / 2, layout == RopeLayout::interleaved,
                    at_element(out, begin * out_THR.stride(0), bytes),
                    {out_THR.stride(0), out_THR.stride(1)});
  });
}

}  // namespace blockptq::nn
