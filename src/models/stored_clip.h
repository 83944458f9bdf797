// Learned activation clips as a deployed folder stores them.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "checkpoint/checkpoint.h"
#include "models/model.h"

namespace blockptq {

/// The factor on a dynamic maximum (fp32 [1]) that the folder stores for the activation in front of
/// a weight, or for the latent that it reads; nothing where there is none. Error naming the tensor
/// when it is no finite number > 0.
std::optional<at::Tensor> stored_clip(const Checkpoint& checkpoint, const ModelTensor& weight);

}  // namespace blockptq
