#include "calibrate/round_learner.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>

#include "exec/fake_quant_exec.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

Weight weight(const char* name, int64_t rows, int64_t cols) {
  return {std::string("x.") + name + ".weight", std::string("expert.") + name,
          at::randn({rows, cols}) / std::sqrt(static_cast<double>(cols))};
}

/// An expert of 4 bits, rounded plainly, on correlated tokens of unequal router weights.
class LearnRounding : public testing::Test {
 protected:
  LearnRounding() {
    result_ = plain_rounding(context_, {mlp_.gate, mlp_.up, mlp_.down});
    exact_.push_back(mlp_.forward(context_.float_exec, x_[0]));
    exact_.push_back(mlp_.forward(context_.float_exec, x_[1]));
  }
  /// Of text 0, learned on, or 1.
  double error(size_t text) const {
    nn::Mlp student = mlp_;
    for (Weight* linear : {&student.gate, &student.up, &student.down}) {
      *linear = quantized_weight(context_, *linear, result_);
    }
    RelativeError sum;
    sum.add(student.forward(exec_, x_[text]), exact_[text], g_T_);
    return sum.value();
  }
  void learn(int64_t tokens) {
    const TokenSource source{1,
                             [&](int64_t) {
                               return TokenSlice{x_[0].slice(0, 0, tokens),
                                                 x_[0].slice(0, 0, tokens),
                                                 g_T_.slice(0, 0, tokens), true};
                             },
                             tokens};
    learn_rounding(context_, exec_, mlp_, source, RoundLearnerOptions(), result_);
  }

  static constexpr int64_t kTokens = 1000;  // no multiple of what the kernel takes
  int seeded_ = (at::manual_seed(5), 0);
  nn::Mlp mlp_{weight("gate_proj", 40, 32), weight("up_proj", 40, 32), weight("down_proj", 32, 40)};
  at::Tensor mix_ = at::randn({8, 32});
  std::vector<at::Tensor> x_{
      at::matmul(at::randn({kTokens, 8}), mix_) + 0.3 * at::randn({kTokens, 32}),
      at::matmul(at::randn({kTokens, 8}), mix_) + 0.3 * at::randn({kTokens, 32})};
  at::Tensor g_T_ = at::rand({kTokens});
  Recipe recipe_ = Recipe::preset("w4a8c8");
  Json algorithm_{{"name", "nearest"}};
  Json refinement_{{"name", "learned_round"}};
  CalibrationContext context_{recipe_, algorithm_, at::kFloat, {}, refinement_};
  FakeQuantExec exec_{recipe_};
  UnitResult result_;
  std::vector<at::Tensor> exact_;
};

TEST_F(LearnRounding, MakesTheOutputBetterOnTokensItDidNotSee) {
  const double before[] = {error(0), error(1)};
  const UnitResult plain = result_;
  learn(kTokens);
  EXPECT_LT(error(0), 0.6 * before[0]);
  EXPECT_LT(error(1), 0.7 * before[1]);
  for (const Weight* linear : {&mlp_.gate, &mlp_.up, &mlp_.down}) {
    const QTensor& learned = result_.weights.at(linear->name);
    const QTensor& rounded = plain.weights.at(linear->name);
    EXPECT_TRUE(at::equal(learned.scales_O, rounded.scales_O));
    EXPECT_LE(learned.codes_OI.abs().max().item<int64_t>(), 8);
    EXPECT_EQ(at::equal(learned.codes_OI, rounded.codes_OI), linear == &mlp_.down);
  }
}

TEST_F(LearnRounding, LeavesAUnitOfFewTokensAlone) {
  const UnitResult plain = result_;
  learn(63);
  for (const auto& [name, chosen] : plain.weights) {
    EXPECT_TRUE(at::equal(result_.weights.at(name).codes_OI, chosen.codes_OI)) << name;
  }
}

TEST_F(LearnRounding, LeavesWhatIsNotQuantizedAlone) {
  result_.weights.erase(mlp_.gate.name);
  const double before = error(0);
  learn(kTokens);
  EXPECT_FALSE(result_.weights.contains(mlp_.gate.name));
  EXPECT_LT(error(0), before);
}

}  // namespace
}  // namespace blockptq
