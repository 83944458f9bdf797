// Who makes a unit of a block, and whether it is made already.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ranks.h"
#include "calibrate/unit.h"

namespace blockptq {

/// What is asked and told of the units of a block.
struct UnitHooks {
  /// The outcome of a unit that an earlier run finished.
  std::function<std::optional<UnitResult>(const std::string& unit, const std::vector<Weight>&)>
      find;
  /// A unit that this rank has just calibrated: `find` gives it from now on, on every rank.
  std::function<void(const UnitResult& result)> finished;
  /// On every rank, in the order of the units: `unit` has done its part.
  std::function<void(const std::string& unit)> passed;
};

/// Who calibrates a unit that all ranks need.
enum class Makers { first, all };

class UnitMaker {
 public:
  using Calibrate = std::function<UnitResult()>;

  /// ranks: must outlive this.
  UnitMaker(UnitHooks hooks, int64_t block, Ranks& ranks)
      : hooks_(std::move(hooks)), block_(block), ranks_(ranks) {}

  /// The outcome of a unit that this rank alone needs, found or made.
  UnitResult own(const std::string& unit, const std::vector<Weight>& tensors,
                 const Calibrate& calibrate) const;
  /// The same of one that all ranks need. Rank 0 looks for it and keeps it.
  UnitResult shared(Makers makers, const std::string& unit, const std::vector<Weight>& tensors,
                    const Calibrate& calibrate) const;
  void passed(const std::string& unit) const { hooks_.passed(unit); }

 private:
  UnitResult make(const std::string& unit, const Calibrate& calibrate) const;

  UnitHooks hooks_;
  int64_t block_;
  Ranks& ranks_;
};

}  // namespace blockptq
