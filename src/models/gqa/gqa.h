// Decoders with grouped-query attention: Llama 2 to 3.3, Qwen3 and Qwen3-MoE. One graph; queries
// and keys are normalised in Qwen3, and blocks of Qwen3-MoE have a softmax router and no shared
// experts. Names and semantics: transformers' modelling code.
#pragma once

#include <memory>

#include "base/json.h"
#include "models/model.h"

namespace blockptq {

std::unique_ptr<Model> make_llama(const JsonView& config);
std::unique_ptr<Model> make_qwen3(const JsonView& config);
std::unique_ptr<Model> make_qwen3_moe(const JsonView& config);

}  // namespace blockptq
