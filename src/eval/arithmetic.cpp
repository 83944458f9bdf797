#include "eval/arithmetic.h"

#include "base/error.h"
#include "exec/fake_quant_exec.h"
#include "quant/algorithms/nearest.h"
#include "run/parameters.h"

namespace blockptq {
namespace {

Json role_rule(std::initializer_list<const char*> roles) {
  return {{"role", roles}, {"weight_bits", kFloatBits}, {"activation_bits", kFloatBits}};
}

Json folder_names(const std::vector<std::filesystem::path>& folders) {
  Json names = Json::array();
  for (const auto& folder : folders) {
    names.push_back(folder.string());
  }
  return names;
}

}  // namespace

Arithmetic float_arithmetic() {
  return {std::make_shared<FloatExec>(), std::nullopt, "float"};
}

Recipe restrict_recipe(const Recipe& recipe, TrainMode mode) {
  switch (mode) {
    case TrainMode::mla:
      return recipe.with_rule(role_rule({"mlp.*", "shared_expert.*", "expert.*"}));
    case TrainMode::moe:
      return recipe.with_rule(role_rule({"attention.*", "indexer.*"})).with_float_cache();
    case TrainMode::block:
      break;
  }
  return recipe;
}

Arithmetic fake_quant_arithmetic(const Checkpoint& checkpoint, const Recipe& recipe,
                                 const LearnedParameters& learned) {
  const auto parameters = std::make_shared<const Parameters>(
      learned.folders, learned.folders.empty() ? std::string() : checkpoint.fingerprint());
  const auto bits = [recipe](const ModelTensor& tensor) {
    return tensor.shape.size() == 2 ? recipe.linear(tensor.role, tensor.name).weight_bits
                                    : kFloatBits;
  };
  WeightTransform transform;
  const auto folded = [parameters](const ModelTensor& tensor) {
    return parameters->folded(tensor.block, tensor.name, tensor.shape);
  };
  transform.wants = [=](const ModelTensor& tensor) {
    return bits(tensor) != kFloatBits || folded(tensor).defined();
  };
  transform.apply = [=, chosen = learned.weights](const ModelTensor& tensor,
                                                  const at::Tensor& w_OI) {
    const int weight_bits = bits(tensor);
    // What was smoothed stays so, whatever is chosen: clips of activations were learned under it.
    const TargetWeight target(w_OI, folded(tensor));
    if (weight_bits == kFloatBits) {
      return target.whole();
    }
    const QTensor quantized =
        chosen ? parameters->quantize(tensor.block, tensor.name, target, weight_bits)
               : nearest(target, weight_bits);
    return quantized.dequantize(at::kFloat);
  };
  SiteFactors factors = learned.activations ? parameters->site_factors() : SiteFactors();
  return {std::make_shared<FakeQuantExec>(recipe, std::move(factors)), transform,
          Json{{"recipe", recipe.json()},
               {"parameters", folder_names(learned.folders)},
               {"learned_weights", learned.weights},
               {"learned_activations", learned.activations}}};
}

}  // namespace blockptq
