// What a run folder tells about its run (inspect RUN_DIR).
#pragma once

#include <filesystem>

#include "base/json.h"

namespace blockptq::cli {

/// Prints command, model, recipe and progress of the run in `folder`. The same as JSON: keys as in
/// docs/reports.md, without the lists of single units and weights.
Json inspect_run(const std::filesystem::path& folder);

}  // namespace blockptq::cli
