// The table of a DeepSeek checkpoint: role <-> name <-> shape.
#pragma once

#include <string>
#include <vector>

#include "models/deepseek/config.h"
#include "models/model.h"

namespace blockptq::deepseek {

std::string block_prefix(int64_t block);                   ///< "model.layers.3."
std::string expert_prefix(int64_t block, int64_t expert);  ///< "model.layers.3.mlp.experts.7."

std::vector<ModelTensor> tensor_table(const Config& config);

}  // namespace blockptq::deepseek
