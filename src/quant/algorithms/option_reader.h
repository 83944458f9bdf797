// The options of what a recipe names, {"name": ..., options}.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace blockptq {

/// Reads options and remembers their names, so that the rest can be refused.
class OptionReader {
 public:
  explicit OptionReader(const JsonView& object) : object_(object) { object_.expect_object(); }

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

}  // namespace blockptq
