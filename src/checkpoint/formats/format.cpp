#include "checkpoint/formats/format.h"

#include <fmt/ranges.h>

#include <functional>
#include <numeric>
#include <set>

#include "base/error.h"

namespace blockptq {
namespace {

std::set<std::string_view> quant_methods() {
  std::set<std::string_view> methods;
  for (const Format* format : all_formats()) {
    if (!format->quant_method().empty()) {
      methods.insert(format->quant_method());
    }
  }
  return methods;
}

}  // namespace

int64_t StoredTensor::rows() const {
  return shape.size() < 2 ? 1 : shape.front();
}

int64_t StoredTensor::row_size() const {
  const auto first = shape.begin() + (shape.size() < 2 ? 0 : 1);
  return std::accumulate(first, shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t StoredTensor::nbytes() const {
  return std::accumulate(
      parts.begin(), parts.end(), int64_t{0},
      [](int64_t sum, const RawTensor& part) { return sum + part.info->nbytes; });
}

void Format::decode_codes(const StoredTensor& /*tensor*/, int64_t /*row_begin*/,
                          int64_t /*row_end*/, int8_t* /*codes*/, float* /*scales*/) const {
  BPTQ_ASSERT(false);
}

Claims::Claims(std::span<const std::unique_ptr<SafetensorsFile>> files,
               std::optional<JsonView> quantization_config)
    : quantization_config_(std::move(quantization_config)) {
  for (const auto& file : files) {
    for (const TensorInfo& info : file->header().tensors) {
      raw_tensors_.push_back({file.get(), &info});
    }
  }
  by_name_.reserve(raw_tensors_.size());
  for (size_t i = 0; i < raw_tensors_.size(); ++i) {
    by_name_.emplace(raw_tensors_[i].info->name, i);
  }
}

std::optional<RawTensor> Claims::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? std::nullopt : std::optional(raw_tensors_[found->second]);
}

void Claims::yield(StoredTensor tensor) {
  for (const RawTensor& part : tensor.parts) {
    check(claimed_.insert(part.info).second, "{}: a part of {} and of another weight", part.where(),
          tensor.name);
  }
  stored_.push_back(std::move(tensor));
}

std::vector<StoredTensor> Claims::take() {
  std::vector<StoredTensor> ordered;
  ordered.reserve(stored_.size());
  std::unordered_map<const TensorInfo*, size_t> by_first_part;
  for (size_t i = 0; i < stored_.size(); ++i) {
    by_first_part.emplace(stored_[i].parts.front().info, i);
  }
  for (const RawTensor& raw : raw_tensors_) {
    if (const auto found = by_first_part.find(raw.info); found != by_first_part.end()) {
      ordered.push_back(std::move(stored_[found->second]));
    }
  }
  stored_.clear();
  return ordered;
}

std::vector<StoredTensor> recognise(std::span<const std::unique_ptr<SafetensorsFile>> files,
                                    std::optional<JsonView> quantization_config) {
  const std::string method =
      quantization_config ? quantization_config->at("quant_method").string() : "";
  if (quantization_config) {
    const std::set<std::string_view> known = quant_methods();
    check(known.contains(method), "{}.quant_method: expected one of {}, found {:?}",
          quantization_config->where(), fmt::join(known, ", "), method);
  }
  Claims claims(files, std::move(quantization_config));
  for (const Format* format : all_formats()) {
    if (format->quant_method().empty() || format->quant_method() == method) {
      format->claim(claims);
    }
  }
  std::vector<StoredTensor> tensors = claims.take();
  // A logical name may differ from the raw one, so that two may meet only here.
  std::unordered_map<std::string_view, const StoredTensor*> names;
  for (const StoredTensor& tensor : tensors) {
    const auto [first, added] = names.emplace(tensor.name, &tensor);
    check(added, "{}: stores {}, as does {}", tensor.where(), tensor.name, first->second->where());
  }
  return tensors;
}

}  // namespace blockptq
