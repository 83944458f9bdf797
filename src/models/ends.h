// The two ends of a model, where a vocabulary is involved that is too large to be loaded whole.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "models/model.h"
#include "models/piece.h"

namespace blockptq {

class Checkpoint;

/// Rows `ids` of the embedding `spec` -> [ids, D] of `type`; each distinct row is read once, the
/// rest of the table not at all.
at::Tensor embed(const Checkpoint& checkpoint, const ModelTensor& spec,
                 std::span<const int32_t> ids, at::ScalarType type);

/// The tensor that is the output head of `unit` (Unit::head or Unit::mtp_head): its own, or the
/// embedding it is tied to.
const ModelTensor& head_weight(const std::vector<ModelTensor>& table, Unit unit);
/// The one tensor of `unit` with `role`.
const ModelTensor& tensor_of(const std::vector<ModelTensor>& table, Unit unit,
                             std::string_view role);

}  // namespace blockptq
