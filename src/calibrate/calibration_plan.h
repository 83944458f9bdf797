// What a calibration will read and hold: known before it starts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "calibrate/calibration_run.h"
#include "checkpoint/checkpoint.h"
#include "eval/model_pass.h"
#include "models/model.h"
#include "models/piece.h"

namespace blockptq {

constexpr int64_t kCalibrationWorkspace = int64_t{256} << 20;

/// Memory is that of the unit that takes most.
struct CalibrationPlan {
  int64_t states_bytes = 0;      ///< of both models, and what a block adds to them
  int64_t weights_bytes = 0;     ///< of the source, in fp32
  int64_t statistics_bytes = 0;  ///< Hessians and their factors
  int64_t exchange_bytes = 0;    ///< outputs that wait for other ranks
  int64_t temporary_bytes = 0;   ///< copies of weights, rounding, what comes and goes
  int64_t program_bytes = 0;     ///< libraries, tokenizer, text
  std::string unit;              ///< that takes most: "block 0 attention"
  int64_t bytes_to_read = 0;
  int64_t disk_bytes = 0;  ///< of the run folder, at most
  int64_t units = 0;
  int64_t peak_bytes() const {
    return states_bytes + weights_bytes + statistics_bytes + exchange_bytes + temporary_bytes +
           program_bytes;
  }
};

/// Error when `max_memory` (0: no bound) cannot hold it.
void check_memory(const CalibrationPlan& plan, int64_t max_memory);

/// Error, on rank 0, when there is no room for what is still to come into the run folder.
void check_space(const CalibrationPlan& plan, const std::filesystem::path& folder,
                 const Ranks& ranks);

/// The blocks of the options; Error for begin or end outside the model, and for a first block whose
/// inputs are not known.
Route calibration_route(const Model& model, const CalibrationOptions& options,
                        const std::vector<CalibrationText>& texts);
/// The pieces of `route` in the order of reading.
std::vector<PieceSpec> calibration_pieces(const Model& model, const Route& route,
                                          at::ScalarType type, bool from_dump);

/// Error as from calibration_route and check_memory.
CalibrationPlan plan_calibration(const Checkpoint& checkpoint, const Model& model,
                                 const std::vector<CalibrationText>& texts,
                                 const CalibrationOptions& options);

}  // namespace blockptq
