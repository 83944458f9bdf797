#include "models/stream_rotation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint.h"

namespace blockptq {

StreamRotation::StreamRotation(const Checkpoint& checkpoint, const Model& model, uint64_t seed)
    : rotation_(model.spec().hidden_size, seed) {
  BPTQ_ASSERT(model.spec().head != Head::tied);
  for (const ModelTensor& tensor : model.tensors()) {
    if (!tensor.reads.empty() || tensor.writes) {
      tensors_.emplace(tensor.name, tensor);
    }
    for (const std::string& name : tensor.reads) {
      if (name != kNoNorm && !norms_.contains(name)) {
        at::Tensor& norm_D = norms_[name] = at::empty({model.spec().hidden_size}, at::kFloat);
        checkpoint.decode(checkpoint.at(name), kernels::FloatType::f32, norm_D.mutable_data_ptr());
      }
    }
  }
}

bool StreamRotation::changes(std::string_view name) const {
  return tensors_.contains(name) || norms_.contains(name);
}

const at::Tensor& StreamRotation::norm(std::string_view name) const {
  const auto found = norms_.find(name);
  BPTQ_ASSERT(found != norms_.end());
  return found->second;
}

/// What the columns behind `name` are multiplied by: the weights of the norms on the way.
at::Tensor StreamRotation::gain(const std::string& name, double chained) const {
  const auto tensor = tensors_.find(name);
  return tensor == tensors_.end() ? norm(name)
                                  : norm(name) * norm(tensor->second.reads.front()) * chained;
}

at::Tensor StreamRotation::apply(std::string_view name, const at::Tensor& w, double chained) const {
  if (norms_.contains(name)) {
    return at::ones_like(w);
  }
  const ModelTensor& tensor = tensors_.at(std::string(name));
  at::Tensor result = w;
  if (!tensor.reads.empty()) {
    std::vector<at::Tensor> parts = w.chunk(static_cast<int64_t>(tensor.reads.size()), -1);
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string& norm = tensor.reads[i];
      parts[i] = rotation_.apply(norm == kNoNorm ? parts[i]
                                                 : parts[i] * gain(norm, chained).to(w.device()));
    }
    result = parts.size() == 1 ? parts.front() : at::cat(parts, -1);
  }
  if (tensor.writes) {
    BPTQ_ASSERT(w.size(0) == tensor.shape.front());
    result = rotation_.apply_left(result);
  }
  return result;
}

WeightTransform StreamRotation::transform() const {
  return {[this](const ModelTensor& tensor) {
            return tensor.unit != Unit::mtp_input && changes(tensor.name);
          },
          [this](const ModelTensor& tensor, const at::Tensor& w) { return apply(tensor.name, w); }};
}

std::unique_ptr<const StreamRotation> make_rotation(const Checkpoint& checkpoint,
                                                    const Model& model, const Recipe& recipe) {
  const auto seed = recipe.transforms().rotate_seed;
  return seed ? std::make_unique<const StreamRotation>(checkpoint, model, *seed) : nullptr;
}

}  // namespace blockptq
