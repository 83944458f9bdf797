// Fake quantization and its gradients against tensors of the public DeepSeek-V3.2 sample.
//
// Only quantizers with a learned clip are comparable: the sample's others take the positive maximum
// for the largest magnitude.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/test_models.h"
#include "eval/test_support.h"
#include "quant/grid.h"
#include "quant/qtensor.h"
#include "quant/straight_through.h"

namespace blockptq {
namespace {

/// A unit of the sample: one expert, one dense MLP or one attention.
struct Unit {
  std::string file;
  int bits;
  bool clamps_weights;
};

void PrintTo(const Unit& unit, std::ostream* stream) {
  *stream << unit.file;
}

/// The largest difference relative to the largest element.
double relative_difference(const at::Tensor& found, const at::Tensor& expected) {
  return max_difference(found, expected) / expected.abs().max().item<double>();
}

class QuantGolden : public testing::TestWithParam<Unit> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(path())) {
      GTEST_SKIP() << GetParam().file << ": not found (BLOCKPTQ_TEST_MODELS)";
    }
  }
  std::filesystem::path path() const {
    return test_models() / "golden" / (GetParam().file + ".safetensors");
  }
  at::Tensor golden(const std::string& name) const { return load_tensor(path(), name); }
  at::Tensor weight(const std::string& linear) const {
    return golden("weight." + linear).to(at::kFloat);
  }

  /// The output of `quantizer` for its input, with the clip logits of `stage` ("init": 4).
  void expect_activations_equal(const std::string& quantizer, const std::string& stage) const {
    const at::Tensor x = golden("fq_init." + quantizer + ".in");
    const at::Tensor logit = stage == "init"
                                 ? at::full({1}, 4.0F)
                                 : golden("trained." + quantizer + ".clip_factor_a_max");
    const at::Tensor y = fake_quantize_st(x, 8, 0, at::sigmoid(logit));
    EXPECT_TRUE(at::equal(y, golden("fq_" + stage + "." + quantizer + ".out"))) << quantizer;
  }
};

using LearnedMlp = QuantGolden;
INSTANTIATE_TEST_SUITE_P(Units, LearnedMlp,
                         testing::Values(Unit{"expert5_layer3_w8", 8, true},
                                         Unit{"expert5_layer3_w4", 4, true},
                                         Unit{"dense_mlp_layer0_w8", 8, false}));

TEST_P(LearnedMlp, ActivationsBitForBit) {
  expect_activations_equal("afq_x", "init");
  expect_activations_equal("afq_down", "init");
  // afq_down saw other values after the training; those were not kept.
  expect_activations_equal("afq_x", "trained");
}

TEST_P(LearnedMlp, WeightsBitForBit) {
  for (const std::string linear : {"gate_proj", "up_proj", "down_proj"}) {
    const at::Tensor w_OI = weight(linear);
    for (const std::string stage : {"init", "trained"}) {
      const std::string name = "fq_" + stage + "." + linear;
      const at::Tensor codes_OI = golden(name + ".q_int8");
      const at::Tensor scales_O = golden(name + ".scale").flatten();
      const at::Tensor expected_OI = QTensor{codes_OI, scales_O}.dequantize(at::kFloat);
      if (!GetParam().clamps_weights) {
        EXPECT_TRUE(at::equal(weight_scales(w_OI, GetParam().bits), scales_O)) << name;
        EXPECT_TRUE(at::equal(quantize_weight(w_OI, GetParam().bits, scales_O).codes_OI, codes_OI))
            << name;
        continue;
      }
      const auto factor = [&](const std::string& side) {
        const at::Tensor logits = stage == "init"
                                      ? at::full({w_OI.size(0)}, 4.0F)
                                      : golden("trained." + linear + ".clip_factor_w_" + side);
        return at::sigmoid(logits.flatten());
      };
      EXPECT_TRUE(at::equal(fake_quantize_clamped_weight_st(w_OI, GetParam().bits, factor("min"),
                                                            factor("max"), at::kFloat),
                            expected_OI))
          << name;
    }
  }
}

/// The unit's forward as the sample trains it, in fp32, with a logit per clip.
class SampleMlp {
 public:
  SampleMlp(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& down, int bits,
            bool clamps_weights)
      : bits_(bits), clamps_weights_(clamps_weights), linears_(3) {
    linears_[0].weight = gate;
    linears_[1].weight = up;
    linears_[2].weight = down;
    for (Linear& linear : linears_) {
      linear.low = at::full({linear.weight.size(0)}, 4.0F).requires_grad_();
      linear.high = at::full({linear.weight.size(0)}, 4.0F).requires_grad_();
    }
  }

  /// Its target: not quantized, but the weights clamped.
  at::Tensor target(const at::Tensor& x) const {
    const auto clamped = [&](const Linear& linear) {
      const at::Tensor& w = linear.weight;
      return clamps_weights_ ? at::clamp(w, (at::sigmoid(linear.low) * w.amin(1)).unsqueeze(1),
                                         (at::sigmoid(linear.high) * w.amax(1)).unsqueeze(1))
                             : w;
    };
    const at::Tensor h =
        at::silu(at::linear(x, clamped(linears_[0]))) * at::linear(x, clamped(linears_[1]));
    return at::linear(h, clamped(linears_[2])).detach();
  }

  at::Tensor forward(const at::Tensor& x) const {
    const at::Tensor x_q = fake_quantize_st(x, 8, 0, at::sigmoid(x_logit));
    const at::Tensor h =
        at::silu(at::linear(x_q, quantized(linears_[0]))) * at::linear(x_q, quantized(linears_[1]));
    return at::linear(fake_quantize_st(h, 8, 0, at::sigmoid(h_logit)), quantized(linears_[2]));
  }

  struct Linear {
    at::Tensor weight;
    at::Tensor low;
    at::Tensor high;
  };
  const Linear& linear(size_t index) const { return linears_[index]; }
  at::Tensor x_logit = at::full({1}, 4.0F).requires_grad_();
  at::Tensor h_logit = at::full({1}, 4.0F).requires_grad_();

 private:
  at::Tensor quantized(const Linear& linear) const {
    return clamps_weights_
               ? fake_quantize_clamped_weight_st(linear.weight, bits_, at::sigmoid(linear.low),
                                                 at::sigmoid(linear.high), at::kFloat)
               : fake_quantize_weight_st(linear.weight, bits_, at::ones({linear.weight.size(0)}),
                                         at::kFloat);
  }

  int bits_;
  bool clamps_weights_;
  std::vector<Linear> linears_;
};

TEST_P(LearnedMlp, GradientsOfTheClips) {
  const SampleMlp mlp(weight("gate_proj"), weight("up_proj"), weight("down_proj"), GetParam().bits,
                      GetParam().clamps_weights);
  const at::Tensor x = golden("input").to(at::kFloat);
  const at::Tensor target = mlp.target(x);
  const at::Tensor y = mlp.forward(x);
  const at::Tensor expected_target = golden("target_ref");
  const int64_t kept = expected_target.size(1);
  EXPECT_LE(relative_difference(target.slice(1, 0, kept), expected_target), 1e-5);
  EXPECT_LE(relative_difference(y.slice(1, 0, kept), golden("out_init_fp32")), 1e-5);

  const at::Tensor loss = (y - target).square().mean();
  (loss / loss.detach()).backward();
  const auto expect_gradient = [&](const at::Tensor& logit, const std::string& clip) {
    const at::Tensor expected = golden("grad0_fp32." + clip);
    EXPECT_LE(relative_difference(logit.grad(), expected.flatten()), 1e-3) << clip;
  };
  expect_gradient(mlp.x_logit, "afq_x.clip_factor_a_max");
  expect_gradient(mlp.h_logit, "afq_down.clip_factor_a_max");
  const std::vector<std::string> names = {"gate_proj", "up_proj", "down_proj"};
  for (size_t i = 0; GetParam().clamps_weights && i < names.size(); ++i) {
    expect_gradient(mlp.linear(i).low, names[i] + ".clip_factor_w_min");
    expect_gradient(mlp.linear(i).high, names[i] + ".clip_factor_w_max");
  }
}

using LearnedAttention = QuantGolden;
INSTANTIATE_TEST_SUITE_P(Units, LearnedAttention, testing::Values(Unit{"mla_layer1_c8", 8, false}));

TEST_P(LearnedAttention, LatentBitForBit) {
  expect_activations_equal("k_cache_quantizer", "init");
  expect_activations_equal("k_cache_quantizer", "trained");
}

TEST_P(LearnedAttention, WeightsBitForBit) {
  for (const std::string linear : {"o_proj", "indexer.wq_b"}) {
    const at::Tensor w_OI = weight(linear);
    const at::Tensor scales_O = golden("fq_init." + linear + ".scale").flatten();
    EXPECT_TRUE(at::equal(weight_scales(w_OI, 8), scales_O)) << linear;
    EXPECT_TRUE(at::equal(quantize_weight(w_OI, 8, scales_O).codes_OI,
                          golden("fq_init." + linear + ".q_int8")))
        << linear;
  }
}

}  // namespace
}  // namespace blockptq
