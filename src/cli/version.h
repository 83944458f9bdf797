// What `--version` says.
#pragma once

#include <string>

namespace blockptq::cli {

/// Version, build and the devices seen.
std::string version_text();

}  // namespace blockptq::cli
