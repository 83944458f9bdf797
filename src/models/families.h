// The table of model families.
#pragma once

#include <memory>

#include "base/json.h"
#include "models/model.h"

namespace blockptq {

class Checkpoint;

/// The model that `config` (config.json) describes. Error naming the known families when
/// `model_type` is none of them, and for any value that makes no model.
std::unique_ptr<Model> make_model(const JsonView& config);

/// The model of a checkpoint folder, with every tensor of its table found there in the right shape.
/// Error naming the tensor otherwise. MTP layers that the checkpoint does not carry at all are
/// dropped with a warning; tensors that the table does not know are named in a warning.
std::unique_ptr<Model> open_model(const Checkpoint& checkpoint);

}  // namespace blockptq
