// The main job: calibrate block by block, and write each block of the deployed checkpoint when its
// units are finished. One pass over the source.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "calibrate/calibration_run.h"
#include "deploy/plan.h"

namespace blockptq {

struct QuantizeOptions {
  CalibrationOptions calibration;  ///< folder: the run's, beside the output
  std::filesystem::path output;
  std::string version;  ///< of the program, for blockptq.json
};

struct QuantizeResult {
  CalibrationResult calibration;
  int64_t bytes_written = 0;  ///< by this process
  bool already_complete = false;
  bool complete = false;  ///< the output is: false when the options end before the last block
};

/// Error for what calibration and deployment refuse. A killed run goes on where it was; the output
/// does not pass for a checkpoint before it is whole. Of several `ranks` (see `calibrate`), rank 0
/// writes the output.
QuantizeResult quantize(const Checkpoint& source, const Model& model, const OutputPlan& plan,
                        const std::vector<CalibrationText>& texts, const QuantizeOptions& options,
                        Progress& progress, Ranks& ranks = alone());

}  // namespace blockptq
