// Calibration data: what enters and leaves every block of the float model, in a run folder.
//
//   block_NNN.inputs.safetensors    "states" [C, L, D] in the compute type
//   block_NNN.outputs.safetensors
//
// The outputs of a block are the inputs of the next: one file with two names (a hard link), or two
// files where the file system has no hard links. An MTP layer, counted after the last block, has
// inputs of its own.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>

#include "base/progress.h"
#include "base/ranks.h"
#include "eval/evaluate.h"
#include "text/windows.h"

namespace blockptq {

std::filesystem::path block_inputs_path(const std::filesystem::path& folder, int64_t block);
std::filesystem::path block_outputs_path(const std::filesystem::path& folder, int64_t block);

struct ExtractPlan {
  EvalPlan pass;           ///< disk_bytes: of the files that are not in the folder yet
  int64_t free_bytes = 0;  ///< of the folder's disk
};

/// What is still to be done in settings.run_folder, which need not exist. Error as from
/// plan_evaluation.
ExtractPlan plan_extract(const Subject& subject, const TokenWindows& windows,
                         const PassSettings& settings);

struct ExtractResult {
  int64_t begin = 0;  ///< first block that was run: earlier work is kept
  int64_t end = 0;
  int64_t bytes_read = 0;
  double seconds = 0;
};

/// Writes the files of blocks [begin, end) to settings.run_folder; a killed run goes on after the
/// last block that it finished. Blocks before `begin` are run as far as no states are there to
/// start from. `on_start` is called once nothing speaks against it, before the first file. Error
/// for too small a disk, for a folder that holds another run, and for everything that reading
/// refuses. Called on each of the `ranks` with the same arguments (and a device of its own), each
/// of which has some of the sequences; rank 0 has the folder, and its `on_start` is called.
ExtractResult extract(const Subject& subject, const TokenWindows& windows,
                      const PassSettings& settings,
                      const std::function<void(const ExtractPlan&)>& on_start, Progress& progress,
                      Ranks& ranks = alone());

}  // namespace blockptq
