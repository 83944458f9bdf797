// How long the rest of a calibration will take: units of a kind that has been seen take as long as
// those did on average, others in proportion to their arithmetic.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "models/model.h"
#include "models/piece.h"
#include "quant/recipe.h"

namespace blockptq {

class TimeEstimate {
 public:
  /// `pieces`: of the run; `tokens`: of all texts, of which a routed expert sees `expert_share`.
  TimeEstimate(const std::vector<PieceSpec>& pieces, const Recipe& recipe, int64_t tokens,
               double expert_share);

  /// A unit of `block` took `seconds`.
  void finished(Unit unit, int64_t block, double seconds);
  /// Seconds of all units that are not finished; 0 before the first one is.
  double remaining() const;

 private:
  struct Kind {
    double operations = 0;  ///< of one unit
    int64_t units = 0;
    int64_t done = 0;
    double seconds = 0;  ///< of those done
  };
  /// Units of the same part of a block with equally many parameters are of one kind.
  using Key = std::pair<Unit, int64_t>;

  std::map<Key, Kind> kinds_;
  std::map<std::pair<Unit, int64_t>, Key> kind_of_;  ///< by unit and block
};

}  // namespace blockptq
