// What a run folder tells about its run: run.json, journal.jsonl and, once the run has ended,
// result.json (docs/reports.md). All of them may be missing parts; a number that is null or absent
// is NaN here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace blockptq {

/// One quantized weight (calibrate/weight_summary.h).
struct WeightEntry {
  std::string name;
  int64_t bits = 0;
  double relative_error = 0;  ///< ||w - s q||^2 / ||w||^2
  std::vector<int64_t> weight_histogram;
  std::vector<int64_t> code_histogram;
};

/// One unit of calibration.
struct UnitEntry {
  int64_t block = 0;
  std::string unit;               ///< "attention", "mlp", "shared_experts" or "expert 7"
  std::optional<int64_t> expert;  ///< its number
  int64_t tokens = 0;
  double loss_before = 0;
  double loss_after = 0;
  double seconds = 0;
  std::string fallback;  ///< why plain rounding was kept; empty: it was not
  std::vector<WeightEntry> weights;

  /// "attention", "mlp", "shared_experts" or "expert".
  std::string kind() const { return expert ? "expert" : unit; }
};

struct BlockEntry {
  int64_t block = 0;
  double relative_error = 0;
  std::optional<double> held_out_error;
  double seconds = 0;
  bool mtp = false;  ///< the MTP layer: its input is not the output of the block before
};

struct HeldOutEntry {
  double float_ppl = 0;
  double ppl = 0;
  double kl = 0;  ///< nats per token
  double top1_agreement = 0;
};

struct RunData {
  Json description = Json::object();  ///< run.json
  Json result = Json::object();       ///< result.json without its lists
  bool finished = false;              ///< there is a result
  std::vector<UnitEntry> units;       ///< by block; experts by number, after the other units
  std::vector<BlockEntry> blocks;     ///< by number
  std::optional<HeldOutEntry> held_out;
};

/// `entries`: lines of the journal; of those for the same unit the last counts. Without any, the
/// lists of `result` ("units", "blocks", "held_out") are taken. Error naming the key for entries of
/// another kind. `result`: null while the run has not ended.
RunData parse_run(const Json& description, const std::vector<Json>& entries, const Json& result);

/// Whether `folder` holds any of the three files.
bool is_run_folder(const std::filesystem::path& folder);

/// Error when `folder` holds none of the three files. A last journal line that was cut off is
/// dropped.
RunData read_run(const std::filesystem::path& folder);

}  // namespace blockptq
