// Output in the layout of the compressed-tensors library, format "int-quantized": one code per byte
// whatever its width, `X.weight` I8 [out, in] and `X.weight_scale` F32 [out, 1].
// Source: compressed-tensors 0.12, quantization/quant_config.py and quant_args.py (the schema
// forbids unknown keys), compressors/quantized_compressors/naive_quantized.py.
#include <algorithm>
#include <cctype>
#include <set>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "checkpoint/formats/output_format.h"

namespace blockptq {
namespace {

/// Where a module stands, without block and expert numbers, and its last component.
struct Place {
  std::string pattern;  ///< regular expression of what is in front of the last component
  std::string last;     ///< e.g. "gate_proj"
};

/// "model.layers.3.mlp.experts.7.up_proj" -> {".*mlp\.experts\.\d+\.", "up_proj"}.
Place place_of(const std::string& module) {
  std::vector<std::string> components(1);
  for (const char character : module) {
    if (character == '.') {
      components.emplace_back();
    } else {
      components.back() += character;
    }
  }
  const auto is_number = [](const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
  };
  size_t first = 0;  // behind the block's number
  while (first + 1 < components.size() && !is_number(components[first])) {
    ++first;
  }
  Place place{".*", components.back()};
  for (size_t i = first + 1; i + 1 < components.size(); ++i) {
    place.pattern += (is_number(components[i]) ? "\\d+" : components[i]) + "\\.";
  }
  return place;
}

/// "(gate|up|down)_proj" of {"gate_proj", "up_proj", "down_proj"}.
std::string alternatives(const std::vector<std::string>& names) {
  if (names.size() == 1) {
    return names.front();
  }
  constexpr std::string_view kEnding = "_proj";
  const bool same_ending = std::all_of(
      names.begin(), names.end(), [&](const std::string& name) { return name.ends_with(kEnding); });
  std::string text;
  for (const std::string& name : names) {
    const size_t kept = name.size() - (same_ending ? kEnding.size() : 0);
    text += (text.empty() ? "(" : "|") + name.substr(0, kept);
  }
  return text + ")" + std::string(same_ending ? kEnding : "");
}

/// Modules that are quantized alike.
struct Group {
  int weight_bits;
  int activation_bits;
  std::vector<std::string> modules;
};

/// The widest weights first: they take the general target.
std::vector<Group> groups_of(const OutputScheme& scheme) {
  std::vector<Group> groups;
  for (const OutputTensor& tensor : scheme.tensors) {
    if (!tensor.quantized()) {
      continue;
    }
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& candidate) {
      return candidate.weight_bits == tensor.weight_bits &&
             candidate.activation_bits == tensor.activation_bits;
    });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), {tensor.weight_bits, tensor.activation_bits, {}});
    }
    group->modules.push_back(module_name(tensor));
  }
  std::stable_sort(groups.begin(), groups.end(), [](const Group& a, const Group& b) {
    return std::tie(a.weight_bits, a.activation_bits) > std::tie(b.weight_bits, b.activation_bits);
  });
  return groups;
}

using Places = std::set<std::pair<std::string, std::string>>;

Places places_of(const std::vector<std::string>& modules) {
  Places places;
  for (const std::string& module : modules) {
    const Place place = place_of(module);
    places.emplace(place.pattern, place.last);
  }
  return places;
}

/// Patterns that match the modules of groups[index] and of no other group; the modules' names where
/// there are none.
Json targets_of(const std::vector<Group>& groups, size_t index) {
  const Group& group = groups[index];
  const Places own = places_of(group.modules);
  for (size_t other = 0; other < groups.size(); ++other) {
    const Places others = other == index ? Places() : places_of(groups[other].modules);
    if (std::any_of(others.begin(), others.end(),
                    [&](const auto& place) { return own.contains(place); })) {
      return group.modules;
    }
  }
  std::vector<std::pair<std::string, std::vector<std::string>>> by_pattern;
  for (const std::string& module : group.modules) {
    const Place place = place_of(module);
    auto found = std::find_if(by_pattern.begin(), by_pattern.end(),
                              [&](const auto& entry) { return entry.first == place.pattern; });
    if (found == by_pattern.end()) {
      found = by_pattern.insert(by_pattern.end(), {place.pattern, {}});
    }
    if (std::find(found->second.begin(), found->second.end(), place.last) == found->second.end()) {
      found->second.push_back(place.last);
    }
  }
  Json targets = Json::array();
  for (const auto& [pattern, names] : by_pattern) {
    targets.push_back("re:" + pattern + alternatives(names) + "$");
  }
  return targets;
}

Json arguments(int bits, const char* strategy, bool dynamic) {
  return {{"num_bits", bits},
          {"type", "int"},
          {"symmetric", true},
          {"strategy", strategy},
          {"dynamic", dynamic}};
}

/// The linears that stay in floating point. A tied output head has no tensor, but is a linear.
Json ignored(const OutputScheme& scheme) {
  Json ignore = Json::array();
  bool head = false;
  for (const OutputTensor& tensor : scheme.tensors) {
    if (is_float_linear(tensor)) {
      ignore.push_back(module_name(tensor));
      head = head || tensor.name == "lm_head.weight";
    }
  }
  if (!head) {
    ignore.push_back("lm_head");
  }
  return ignore;
}

class CompressedTensorsOutput final : public OutputFormat {
 public:
  std::string_view name() const override { return "compressed-tensors"; }

  std::vector<std::string> check_scheme(const OutputScheme& scheme) const override {
    check(scheme.clips.empty(),
          "--format {}: cannot carry learned activation clips (of {} and {} more); use --format "
          "ascend, or parameters that were trained without --lac",
          name(), scheme.clips.empty() ? "" : scheme.clips.begin()->first,
          scheme.clips.size() - std::min<size_t>(scheme.clips.size(), 1));
    for (const OutputTensor& tensor : scheme.tensors) {
      check(!tensor.quantized() || tensor.weight_bits == 8 || tensor.weight_bits == 4,
            "--format {}: {}: expected weights of 8, 4 or 16 bits, found {}", name(), tensor.name,
            tensor.weight_bits);
    }
    return {};
  }

  std::vector<TensorSpec> weight_specs(const OutputTensor& tensor) const override {
    return int8_specs(tensor);
  }
  std::unique_ptr<WeightEncoder> encoder(const OutputTensor& /*tensor*/) const override {
    return int8_encoder();
  }
  std::vector<ConstantTensor> constants(const OutputScheme& /*scheme*/) const override {
    return {};
  }

  Json quantization_config(const OutputScheme& scheme) const override {
    const std::vector<Group> groups = groups_of(scheme);
    if (groups.empty()) {
      return nullptr;
    }
    Json config_groups = Json::object();
    for (size_t i = 0; i < groups.size(); ++i) {
      const Json targets = i == 0 ? Json::array({"Linear"}) : targets_of(groups, i);
      const Json inputs = groups[i].activation_bits < 16
                              ? arguments(groups[i].activation_bits, "token", /*dynamic=*/true)
                              : Json(nullptr);
      config_groups["group_" + std::to_string(i)] = {
          {"targets", targets},
          {"weights", arguments(groups[i].weight_bits, "channel", /*dynamic=*/false)},
          {"input_activations", inputs}};
    }
    return {{"quant_method", "compressed-tensors"}, {"format", "int-quantized"},
            {"quantization_status", "compressed"},  {"global_compression_ratio", nullptr},
            {"kv_cache_scheme", nullptr},           {"ignore", ignored(scheme)},
            {"config_groups", config_groups}};
  }
};

}  // namespace

const OutputFormat& compressed_tensors_output() {
  static const CompressedTensorsOutput kFormat;
  return kFormat;
}

}  // namespace blockptq
