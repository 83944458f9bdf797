#include "calibrate/unit_files.h"

#include "calibrate/weight_summary.h"
#include "run/parameters.h"
#include "run/tensor_file.h"

namespace blockptq {

std::optional<UnitResult> UnitFiles::find(int64_t block, const std::string& unit,
                                          const std::vector<Weight>& weights) const {
  const std::filesystem::path path = folder_.unit_path(block, unit);
  if (!std::filesystem::exists(path)) {
    return std::nullopt;
  }
  const NamedTensors tensors = read_tensors(path);
  const auto find = [&](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? std::nullopt : std::optional(found->second);
  };
  UnitResult result;
  for (const Weight& weight : weights) {
    const int bits = recipe_.linear(weight.role, weight.name).weight_bits;
    if (bits != kFloatBits) {
      result.weights[weight.name] = quantize_as_learned(weight.name, weight.value, bits, find);
    }
    if (const auto clip = find(parameter_name(weight.name, ".input_clip"))) {
      result.input_clips[weight.name] = *clip;
    }
  }
  for (const auto& [name, value] : tensors) {
    if (name.ends_with(".weight")) {
      result.transformed[name] = value;
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
  for (const Weight& weight : result.targets) {
    const auto chosen = result.weights.find(weight.name);
    if (chosen != result.weights.end()) {
      const auto folded = result.folded.find(weight.name);
      keep_learned(weight.name, weight.value,
                   folded == result.folded.end() ? FoldedFactors() : folded->second, chosen->second,
                   keep_codes_, tensors);
      entry["weights"].push_back(summarize_weight(weight.name, weight.value, chosen->second));
    }
  }
  for (const auto& [name, logit] : result.input_clips) {
    tensors[parameter_name(name, ".input_clip")] = logit;
  }
  folder_.keep_unit(entry, tensors);
}

}  // namespace blockptq
