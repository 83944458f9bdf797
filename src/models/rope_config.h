// Rope settings of config.json, in both spellings: `rope_theta` + `rope_scaling` (official) and
// `rope_parameters` (transformers 5).
#pragma once

#include <cstdint>

#include "base/json.h"
#include "nn/rope.h"

namespace blockptq {

/// `dim`: rotated dimensions of a head. Error for a kind of scaling other than "default", "yarn"
/// and "llama3", and for heads that are rotated in part.
nn::RopeSpec parse_rope(const JsonView& config, int64_t dim);

}  // namespace blockptq
