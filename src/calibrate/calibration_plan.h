// What a calibration will read and hold: known before it starts.
#pragma once

#include <cstdint>
#include <vector>

#include "calibrate/calibration_run.h"
#include "checkpoint/checkpoint.h"
#include "eval/model_pass.h"
#include "models/model.h"
#include "models/piece.h"

namespace blockptq {

constexpr int64_t kCalibrationRuntime = int64_t{384} << 20;  // libraries, tokenizer, text
constexpr int64_t kCalibrationWorkspace = int64_t{256} << 20;

struct CalibrationPlan {
  int64_t states_bytes = 0;
  int64_t weights_bytes = 0;
  int64_t hessian_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t runtime_bytes = 0;
  int64_t bytes_to_read = 0;
  int64_t disk_bytes = 0;  ///< of the run folder, at most
  int64_t units = 0;
  int64_t peak_bytes() const {
    return states_bytes + weights_bytes + hessian_bytes + workspace_bytes + runtime_bytes;
  }
};

/// Error when `max_memory` (0: no bound) cannot hold it.
void check_memory(const CalibrationPlan& plan, int64_t max_memory);

/// The blocks of the options; Error for begin or end outside the model, and for a first block whose
/// inputs are not known.
Route calibration_route(const Model& model, const CalibrationOptions& options,
                        const std::vector<CalibrationText>& texts);
/// The pieces of `route` in the order of reading.
std::vector<PieceSpec> calibration_pieces(const Model& model, const Route& route, bool from_dump);

/// Error as from calibration_route and check_memory.
CalibrationPlan plan_calibration(const Checkpoint& checkpoint, const Model& model,
                                 const std::vector<CalibrationText>& texts,
                                 const CalibrationOptions& options);

}  // namespace blockptq
