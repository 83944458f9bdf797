// What the program is and what it runs on.
#pragma once

#include <string>

#include "base/json.h"
#include "cli/options.h"

namespace blockptq::cli {

/// Version, build and the devices seen.
std::string version_text();

/// The same, with the options, for the result of a run.
Json environment_json(const ComputeOptions& compute);

}  // namespace blockptq::cli
