// The table of a Llama, Qwen3 or Qwen3-MoE checkpoint: role <-> name <-> shape.
#pragma once

#include <vector>

#include "models/gqa/config.h"
#include "models/model.h"

namespace blockptq::gqa {

std::vector<ModelTensor> tensor_table(const Config& config);

}  // namespace blockptq::gqa
