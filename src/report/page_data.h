// The numbers of a run's page: what its tables and charts are drawn from and what it carries as
// JSON (docs/reports.md has the keys).
#pragma once

#include <string>

#include "base/json.h"
#include "report/run_data.h"

namespace blockptq {

/// `name`: of the run, the title when the result names no model. Losses of single units are rounded
/// to 6 significant digits, everything else is as in the run folder.
Json page_data(const RunData& run, const std::string& name);

}  // namespace blockptq
