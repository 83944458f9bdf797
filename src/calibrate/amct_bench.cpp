// One learning step of a routed expert of DeepSeek-V3.2 against the same step as the sample
// composes it of tensor operations: fp32 weights, bf16 products, W4A8, 512 tokens.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "calibrate/adamw.h"
#include "calibrate/amct_unit.h"
#include "kernels/bench_ratio.h"

namespace blockptq {
namespace {

constexpr int64_t kHidden = 7168;
constexpr int64_t kIntermediate = 2048;
constexpr int64_t kTokens = 512;
constexpr double kRate = 0.1;

at::Tensor round_straight_through(const at::Tensor& x) {
  return (x.round() - x).detach() + x;
}

/// The sample's fake quantization: integers from -2^(b-1) to 2^(b-1) - 1.
at::Tensor on_grid(const at::Tensor& x, const at::Tensor& maxima, int bits) {
  const double top = (1 << (bits - 1)) - 1;
  const at::Tensor scale = maxima / top;
  return scale * round_straight_through(x / scale).clamp(-top - 1, top);
}

/// The step of the sample, operation by operation.
class ComposedMlp {
 public:
  explicit ComposedMlp(const nn::Mlp& mlp) {
    for (const Weight* weight : {&mlp.gate, &mlp.up, &mlp.down}) {
      weights_.push_back(weight->value);
      for (int side = 0; side < 2; ++side) {
        logits.push_back(at::full({weight->value.size(0), 1}, 4.0F).requires_grad_());
      }
    }
    logits.push_back(at::full({1}, 4.0F).requires_grad_());
    logits.push_back(at::full({1}, 4.0F).requires_grad_());
  }

  double backward(const at::Tensor& x, const at::Tensor& target) const {
    const at::Tensor x_q = activation(x, logits[6]).to(at::kBFloat16);
    const at::Tensor gate = at::linear(x_q, weight(0).to(at::kBFloat16));
    const at::Tensor up = at::linear(x_q, weight(1).to(at::kBFloat16));
    const at::Tensor h = at::silu(gate) * up;
    const at::Tensor y =
        at::linear(activation(h, logits[7]).to(at::kBFloat16), weight(2).to(at::kBFloat16));
    const at::Tensor loss = at::mse_loss(y.to(at::kFloat), target);
    (loss / loss.detach()).backward();
    return loss.item<double>();
  }

  std::vector<at::Tensor> logits;

 private:
  at::Tensor weight(size_t index) const {
    const at::Tensor& w = weights_[index];
    const at::Tensor high = w.amax(1, /*keepdim=*/true) * at::sigmoid(logits[2 * index]);
    const at::Tensor low = w.amin(1, /*keepdim=*/true) * at::sigmoid(logits[2 * index + 1]);
    const at::Tensor clipped = at::minimum(at::maximum(w, low), high);
    const at::Tensor maxima = at::maximum(clipped.amin(1, /*keepdim=*/true).clamp_max(0).abs(),
                                          clipped.amax(1, /*keepdim=*/true).clamp_min(0))
                                  .clamp_min(1e-5);
    return on_grid(clipped, maxima, 4);
  }
  static at::Tensor activation(const at::Tensor& x, const at::Tensor& logit) {
    const at::Tensor maxima =
        at::maximum(x.amin(-1, /*keepdim=*/true).abs(), x.amax(-1, /*keepdim=*/true)) *
        at::sigmoid(logit);
    return on_grid(x, maxima, 8);
  }

  std::vector<at::Tensor> weights_;
};

void amct_expert_step(benchmark::State& state) {
  at::manual_seed(1);
  const auto weight = [](const char* name, int64_t rows, int64_t cols) {
    return Weight{std::string("x.") + name + ".weight", std::string("expert.") + name,
                  at::randn({rows, cols}) / std::sqrt(static_cast<double>(cols))};
  };
  const nn::Mlp mlp{weight("gate_proj", kIntermediate, kHidden),
                    weight("up_proj", kIntermediate, kHidden),
                    weight("down_proj", kHidden, kIntermediate)};
  AmctOptions options;
  options.recipe = Recipe::preset("w4a8c8");
  const AmctMlp unit(mlp, options);
  const ComposedMlp composed(mlp);
  const at::Tensor inputs = at::randn({1, kTokens, kHidden});
  const at::Tensor targets = unit.targets(inputs);
  AdamW adamw(unit.learned(), 0.01);
  AdamW composed_adamw(composed.logits, 0.01);
  std::vector<double> losses;
  std::vector<double> composed_losses;
  kernels::measure_against(
      state, "composed", 3 * kHidden * kIntermediate * 4,
      [&] {
        losses.push_back(unit.backward(inputs, targets));
        adamw.step(kRate);
      },
      [&] {
        composed_losses.push_back(composed.backward(inputs, targets));
        composed_adamw.step(kRate);
      });
  double gap = 0;
  for (size_t i = 0; i < std::min(losses.size(), composed_losses.size()); ++i) {
    gap = std::max(gap, std::abs(losses[i] / composed_losses[i] - 1));
  }
  state.counters["loss_gap"] = gap;  // the largest relative difference of the two loss curves
}

BENCHMARK(amct_expert_step)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace blockptq
