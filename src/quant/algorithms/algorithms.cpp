#include "quant/algorithms/algorithms.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "quant/algorithms/gptq.h"
#include "quant/algorithms/nearest.h"
#include "quant/algorithms/scale_search.h"

namespace blockptq {
namespace {

/// Reads options and remembers their names, so that the rest can be refused.
class Options {
 public:
  explicit Options(const JsonView& object) : object_(object) { object_.expect_object(); }

  void read(const char* name, int64_t& value, int64_t min, int64_t max) {
    value = object_.integer_or(known(name), value, min, max);
  }
  void read(const char* name, bool& value) { value = object_.boolean_or(known(name), value); }
  void read(const char* name, double& value, double min, double max) {
    value = object_.number_or(known(name), value);
    check(value >= min && value <= max,
          "{}: option '{}': expected a number from {} to {}, found {}", object_.where(), name, min,
          max, value);
  }

  /// Error for every member that was not read.
  void finish() const {
    for (const auto& item : object_.raw().items()) {
      check(std::find(known_.begin(), known_.end(), item.key()) != known_.end(),
            "{}: unknown option '{}', expected {}", object_.where(), item.key(),
            known_.empty() ? "none" : fmt::format("one of: {}", fmt::join(known_, ", ")));
    }
  }

 private:
  const char* known(const char* name) {
    known_.emplace_back(name);
    return name;
  }

  const JsonView& object_;
  std::vector<std::string> known_;
};

/// For an algorithm that treats every weight by itself.
template <typename Function>
Algorithm one_by_one(Function function) {
  return [function](at::ArrayRef<at::Tensor> weights_OI, int bits, const InputStatistics& input) {
    std::vector<QTensor> quantized;
    quantized.reserve(weights_OI.size());
    for (const at::Tensor& w_OI : weights_OI) {
      quantized.push_back(function(w_OI, bits, input));
    }
    return quantized;
  };
}

Algorithm make_nearest(Options& /*options*/) {
  return one_by_one([](const at::Tensor& w_OI, int bits, const InputStatistics& /*input*/) {
    return nearest(w_OI, bits);
  });
}

Algorithm make_scale_search(Options& options) {
  ScaleSearchOptions chosen;
  options.read("steps", chosen.steps, 1, 1000);
  options.read("smallest", chosen.smallest, 1e-3, 1);
  options.read("exact", chosen.exact, 0, 1000);
  return one_by_one([chosen](const at::Tensor& w_OI, int bits, const InputStatistics& input) {
    return scale_search(w_OI, bits, input, chosen);
  });
}

Algorithm make_gptq(Options& options) {
  GptqOptions chosen;
  options.read("damping", chosen.factor.damping, 0, 1e3);
  options.read("token_damping", chosen.factor.token_damping, 0, 1e3);
  options.read("act_order", chosen.factor.act_order);
  options.read("correct", chosen.correct);
  options.read("scales", chosen.scales, 1, 1000);
  options.read("scale_range", chosen.scale_range, 0, 0.9);
  options.read("sweeps", chosen.sweeps, 0, 1000);
  return [chosen](at::ArrayRef<at::Tensor> weights_OI, int bits, const InputStatistics& input) {
    return gptq(weights_OI, bits, input, chosen);
  };
}

struct Row {
  std::string_view name;
  Algorithm (*make)(Options& options);
};

constexpr std::array kAlgorithms{
    Row{"nearest", &make_nearest},
    Row{"scale_search", &make_scale_search},
    Row{"gptq", &make_gptq},
};

}  // namespace

std::string algorithm_names() {
  std::string names;
  for (const Row& row : kAlgorithms) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

Algorithm make_algorithm(std::string_view name, const JsonView& options) {
  const auto* row = std::find_if(kAlgorithms.begin(), kAlgorithms.end(),
                                 [&](const Row& candidate) { return candidate.name == name; });
  check(row != kAlgorithms.end(), "{}: unknown algorithm '{}', expected one of: {}",
        options.where(), name, algorithm_names());
  Options reader(options);
  Algorithm algorithm = row->make(reader);
  reader.finish();
  return algorithm;
}

}  // namespace blockptq
