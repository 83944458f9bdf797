// The pass that calibrates a model: block by block, the float model and the quantized model side by
// side over the same texts, every weight read once.
//
// The run folder holds the states of both at the last finished block and what was learned in the
// block in work, so that a killed run goes on at the unit that it was at.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/ranks.h"
#include "calibrate/states_dump.h"
#include "calibrate/unit.h"
#include "checkpoint/checkpoint.h"
#include "models/model.h"
#include "quant/recipe.h"
#include "text/windows.h"

namespace blockptq {

struct CalibrationText {
  TokenWindows windows;  ///< none with a dump
  std::string fingerprint;
  bool calibrate = true;  ///< false: held-out, to measure on
  /// The states of the float model on the text, which both models start from at the first block
  /// (and again at an MTP layer); of all texts or of none. Nothing: they start from the embeddings.
  std::optional<StatesDump> dump = std::nullopt;

  int64_t sequences() const { return dump ? dump->sequences() : windows.count(); }
  int64_t seq_len() const { return dump ? dump->seq_len() : windows.seq_len; }
};

struct CalibrationOptions {
  Recipe recipe;
  Json default_algorithm = {{"name", "gptq"}};   ///< of linears whose rule names none
  Json default_refinement = {{"name", "none"}};  ///< of MLPs whose rule names none
  at::ScalarType type = at::kBFloat16;
  at::Device device = at::kCPU;
  bool dense_attention = false;
  bool mtp = true;    ///< calibrate the MTP layer, where there is one
  int64_t begin = 0;  ///< first block; not 0 only with a dump
  int64_t end = -1;   ///< one past the last block; -1: all
  int64_t max_memory = 0;
  std::filesystem::path folder;  ///< of the run
  bool restart = false;
  int ranks = 1;                ///< that share the work; a plan is for each of them
  bool keep_parameters = true;  ///< leave quant_parameters_N.safetensors
  bool keep_codes = false;      ///< in the unit files, also where the scales give them
  std::string command;          ///< for run.json
  /// Called when all units of a block are finished, with their files in the order of the units,
  /// before the end of the block is recorded; the files are removed then.
  std::function<void(int64_t block, const std::vector<std::filesystem::path>& unit_files)> on_block;
};

/// Relative squared error of the quantized model's output of a block, per text.
struct BlockReport {
  int64_t block = 0;
  bool mtp = false;  ///< the MTP layer: its input is not the output of the block before
  double calibration_error = 0;
  std::optional<double> held_out_error;
  double seconds = 0;
  Json json() const;
};

struct CalibrationResult {
  std::vector<Json> units;  ///< UnitReport::json of every unit
  std::vector<Json> blocks;
  std::optional<Json>
      held_out;  ///< {"float_ppl", "ppl", "kl", "top1_agreement"} on the held-out text
  int64_t end = 0;
  int64_t bytes_read = 0;
  double seconds = 0;  ///< of the run, but for blocks that a killed process was in
};

/// Error for a run folder of another run, and for everything that reading refuses. Called on each
/// of the `ranks` with the same arguments (and a device of its own); the run folder is one for all.
/// Rank 0 has the whole result, and its `on_block` is called.
CalibrationResult calibrate(const Checkpoint& checkpoint, const Model& model,
                            const std::vector<CalibrationText>& texts,
                            const CalibrationOptions& options, Progress& progress,
                            Ranks& ranks = alone());

}  // namespace blockptq
