#include "calibrate/unit_maker.h"

#include <chrono>

#include "base/error.h"

namespace blockptq {

UnitResult UnitMaker::make(const std::string& unit, const Calibrate& calibrate) const {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  UnitResult result = calibrate();
  result.report.block = block_;
  result.report.unit = unit;
  result.report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

UnitResult UnitMaker::own(const std::string& unit, const std::vector<Weight>& tensors,
                          const Calibrate& calibrate) const {
  if (auto found = hooks_.find(unit, tensors)) {
    return std::move(*found);
  }
  UnitResult result = make(unit, calibrate);
  hooks_.finished(result);
  return result;
}

UnitResult UnitMaker::shared(Makers makers, const std::string& unit,
                             const std::vector<Weight>& tensors, const Calibrate& calibrate) const {
  const bool first = ranks_.rank() == 0;
  std::optional<UnitResult> result = first ? hooks_.find(unit, tensors) : std::nullopt;
  bool found = result.has_value();
  broadcast(ranks_, Channel::states, &found, sizeof(found), 0);
  if (!found && (first || makers == Makers::all)) {
    result = make(unit, calibrate);
    if (first) {
      hooks_.finished(*result);
    }
  }
  meet(ranks_);
  if (!result) {
    result = hooks_.find(unit, tensors);
    BPTQ_ASSERT(result.has_value());
  }
  meet(ranks_);  // nobody removes what the others still read
  return std::move(*result);
}

}  // namespace blockptq
