// The table of a DeepSeek checkpoint: role <-> name <-> shape.
#pragma once

#include <vector>

#include "models/deepseek/config.h"
#include "models/model.h"

namespace blockptq::deepseek {

std::vector<ModelTensor> tensor_table(const Config& config);

}  // namespace blockptq::deepseek
