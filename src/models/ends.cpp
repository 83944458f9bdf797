#include "models/ends.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "tensor/float_type.h"

namespace blockptq {

at::Tensor embed(const Checkpoint& checkpoint, const ModelTensor& spec,
                 std::span<const int32_t> ids, at::ScalarType type) {
  std::vector<int64_t> distinct(ids.begin(), ids.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const auto count = static_cast<int64_t>(distinct.size());
  const at::Tensor rows = at::empty({count, spec.shape[1]}, at::TensorOptions(type));
  checkpoint.gather_rows(checkpoint.at(spec.name), distinct, float_type(type), rows.data_ptr());

  const at::Tensor positions = at::empty({static_cast<int64_t>(ids.size())}, at::kLong);
  std::transform(ids.begin(), ids.end(), positions.mutable_data_ptr<int64_t>(), [&](int32_t id) {
    return std::lower_bound(distinct.begin(), distinct.end(), id) - distinct.begin();
  });
  return rows.index_select(0, positions);
}

const ModelTensor& tensor_of(const std::vector<ModelTensor>& table, Unit unit,
                             std::string_view role) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const ModelTensor& tensor) {
    return tensor.unit == unit && tensor.role == role;
  });
  BPTQ_ASSERT(found != table.end());
  return *found;
}

const ModelTensor& head_weight(const std::vector<ModelTensor>& table, Unit unit) {
  const bool own = std::any_of(table.begin(), table.end(), [&](const ModelTensor& tensor) {
    return tensor.unit == unit && tensor.role == "lm_head";
  });
  return own ? tensor_of(table, unit, "lm_head") : tensor_of(table, Unit::embedding, "embedding");
}

}  // namespace blockptq
