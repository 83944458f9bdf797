// Memory that the calibration of a unit takes beside states and the stream of weights, estimated
// from the shapes of its tensors; tests/test_memory.py compares with what the kernel counts.
#pragma once

#include <cstdint>

#include "calibrate/calibration_run.h"
#include "eval/memory.h"
#include "models/piece.h"

namespace blockptq {

struct UnitMemory {
  int64_t statistics_bytes = 0;  ///< sums over the inputs, their factors
  int64_t other_bytes = 0;       ///< integers, rounding, temporaries

  int64_t bytes() const { return statistics_bytes + other_bytes; }
};

/// While the unit of `piece` is calibrated, on texts of at most `observed_tokens`, and
/// both models run on.
UnitMemory unit_memory(const PieceSpec& piece, const CalibrationOptions& options,
                       const PassShape& shape, int64_t observed_tokens);

}  // namespace blockptq
