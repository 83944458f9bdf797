// DeepSeek-V3, R1 and V3.2 (and Kimi-K2, the same architecture): MLA, the DSA indexer of V3.2,
// sigmoid group-limited router, shared experts, MTP layers. Names and semantics: the published
// modelling code.
#pragma once

#include <memory>

#include "base/json.h"
#include "models/model.h"

namespace blockptq {

std::unique_ptr<Model> make_deepseek(const JsonView& config);

}  // namespace blockptq
