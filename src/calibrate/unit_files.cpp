#include "calibrate/unit_files.h"

#include "calibrate/weight_summary.h"
#include "run/parameters.h"
#include "run/tensor_file.h"

namespace blockptq {

std::optional<UnitResult> UnitFiles::find(int64_t block, const std::string& unit,
                                          const std::vector<Weight>& tensors) const {
  const std::filesystem::path path = folder_.unit_path(block, unit);
  if (!std::filesystem::exists(path)) {
    return std::nullopt;
  }
  const NamedTensors kept = read_tensors(path);
  const auto find = [&](const std::string& name) {
    const auto found = kept.find(name);
    return found == kept.end() ? std::nullopt : std::optional(found->second);
  };
  UnitResult result;
  for (const Weight& tensor : tensors) {
    const FoldedFactors folded = learned_factors(tensor.name, tensor.value.sizes(), find);
    const TargetWeight target(tensor.value, folded);
    const bool matrix = tensor.value.dim() == 2;
    if (matrix && find(parameter_name(tensor.name, ".weight_scale"))) {
      const int bits = recipe_.linear(tensor.role, tensor.name).weight_bits;
      result.weights[tensor.name] = quantize_as_learned(tensor.name, target, bits, find);
    }
    if (const auto clip =
            matrix ? find(parameter_name(tensor.name, ".input_clip")) : std::nullopt) {
      result.input_clips[tensor.name] = *clip;
    }
    if (folded.defined()) {
      result.targets.emplace(tensor.name, target);
    }
    if (const auto transformed = find(tensor.name)) {
      result.transformed[tensor.name] = *transformed;
    }
  }
  result.report.block = block;
  result.report.unit = unit;
  return result;
}

void UnitFiles::keep(const UnitResult& result) const {
  NamedTensors tensors(result.transformed.begin(), result.transformed.end());
  Json entry = result.report.json();
  entry["weights"] = Json::array();
  for (const auto& [name, target] : result.targets) {
    keep_factors(name, target.folded(), tensors);
    const auto chosen = result.weights.find(name);
    if (chosen != result.weights.end()) {
      keep_learned(name, target, chosen->second, keep_codes_, tensors);
      entry["weights"].push_back(summarize_weight(name, target, chosen->second));
    }
  }
  for (const auto& [name, logit] : result.input_clips) {
    tensors[parameter_name(name, ".input_clip")] = logit;
  }
  folder_.keep_unit(entry, tensors);
}

}  // namespace blockptq
