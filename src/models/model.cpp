#include "models/model.h"

#include "base/error.h"

namespace blockptq {

std::vector<ScalePoint> Model::attention_scale_points(int64_t /*block*/) const {
  return {};
}

at::Tensor Model::mtp_input(const Piece& /*mtp_input*/, int64_t /*block*/,
                            const at::Tensor& /*embedded_TD*/,
                            const at::Tensor& /*hidden_TD*/) const {
  BPTQ_ASSERT(false);
  return {};
}

}  // namespace blockptq
