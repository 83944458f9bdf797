#include "quant/algorithms/algorithms.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "quant/algorithms/gptq.h"
#include "quant/algorithms/nearest.h"
#include "quant/algorithms/option_reader.h"
#include "quant/algorithms/scale_search.h"

namespace blockptq {
namespace {

/// For an algorithm that treats every weight by itself.
template <typename Function>
Algorithm one_by_one(Function function) {
  return [function](at::ArrayRef<TargetWeight> weights, int bits, const GroupedStatistics& input) {
    std::vector<QTensor> quantized;
    quantized.reserve(weights.size());
    for (const TargetWeight& weight : weights) {
      quantized.push_back(function(weight, bits, input));
    }
    return quantized;
  };
}

Algorithm make_nearest(OptionReader& /*options*/, at::ScalarType /*products*/) {
  return one_by_one([](const TargetWeight& weight, int bits, const GroupedStatistics& /*input*/) {
    return nearest(weight, bits);
  });
}

Algorithm make_scale_search(OptionReader& options, at::ScalarType products) {
  ScaleSearchOptions chosen;
  chosen.products = products;
  options.read("steps", chosen.steps, 1, 1000);
  options.read("smallest", chosen.smallest, 1e-3, 1);
  options.read("exact", chosen.exact, 0, 1000);
  return one_by_one([chosen](const TargetWeight& weight, int bits, const GroupedStatistics& input) {
    return scale_search(weight, bits, input, chosen);
  });
}

Algorithm make_gptq(OptionReader& options, at::ScalarType products) {
  GptqOptions chosen;
  chosen.products = products;
  options.read("damping", chosen.factor.damping, 0, 1e3);
  options.read("token_damping", chosen.factor.token_damping, 0, 1e3);
  options.read("act_order", chosen.factor.act_order);
  options.read("correct", chosen.correct);
  options.read("scales", chosen.scales, 1, 1000);
  options.read("scale_range", chosen.scale_range, 0, 0.9);
  options.read("sweeps", chosen.sweeps, 0, 1000);
  return [chosen](at::ArrayRef<TargetWeight> weights, int bits, GroupedStatistics input) {
    return gptq(weights, bits, std::move(input), chosen);
  };
}

struct Row {
  std::string_view name;
  bool cross_sums;
  Algorithm (*make)(OptionReader& options, at::ScalarType products);
};

constexpr std::array kAlgorithms{
    Row{"nearest", false, &make_nearest},
    Row{"scale_search", false, &make_scale_search},
    Row{"gptq", true, &make_gptq},
};

const Row* find_row(std::string_view name) {
  const auto* row = std::ranges::find_if(
      kAlgorithms, [&](const Row& candidate) { return candidate.name == name; });
  return row == kAlgorithms.end() ? nullptr : row;
}

}  // namespace

bool uses_cross_sums(std::string_view name) {
  const Row* row = find_row(name);
  return row != nullptr && row->cross_sums;
}

std::string algorithm_names() {
  std::string names;
  for (const Row& row : kAlgorithms) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

Algorithm make_algorithm(std::string_view name, const JsonView& options, at::ScalarType products) {
  const Row* row = find_row(name);
  check(row != nullptr, "{}: unknown algorithm '{}', expected one of: {}", options.where(), name,
        algorithm_names());
  OptionReader reader(options);
  Algorithm algorithm = row->make(reader, products);
  reader.finish();
  return algorithm;
}

}  // namespace blockptq
