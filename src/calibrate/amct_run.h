// `train --compat amct`: the procedure of the public DeepSeek-V3.2 sample over the blocks of a
// model, each by itself on what enters it in the float model (calibrate/amct.h has the units).
//
// The run folder gets quant_parameters_N.safetensors of every block. A killed run goes on at the
// unit that it was at; other blocks may follow in the same folder.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/progress.h"
#include "base/ranks.h"
#include "calibrate/amct.h"
#include "calibrate/calibration_plan.h"
#include "calibrate/calibration_run.h"
#include "calibrate/states_dump.h"
#include "checkpoint/checkpoint.h"
#include "eval/arithmetic.h"
#include "models/model.h"

namespace blockptq {

struct AmctRunOptions {
  AmctOptions learn;                  ///< the recipe restricted to `mode`
  TrainMode mode = TrainMode::block;  ///< which units are learned
  at::Device device = at::kCPU;
  int64_t begin = 0;
  int64_t end = -1;  ///< one past the last block; -1: all that the dump has the inputs of
  int64_t max_memory = 0;
  std::filesystem::path folder;
  bool restart = false;
};

/// Error when `max_memory` cannot hold it.
CalibrationPlan plan_amct(const Checkpoint& checkpoint, const Model& model, const StatesDump& dump,
                          const AmctRunOptions& options);

/// Units report losses as mean squared errors, "epoch_sums" too (calibrate/amct.h). Error for a run
/// folder of another run, a unit that cannot be learned, and everything that reading refuses.
/// Called on each of the `ranks` with the same arguments (and a device of its own), which share the
/// units of every block; rank 0 has the whole result.
CalibrationResult train_amct(const Checkpoint& checkpoint, const Model& model,
                             const StatesDump& dump, const AmctRunOptions& options,
                             Progress& progress, Ranks& ranks = alone());

}  // namespace blockptq
