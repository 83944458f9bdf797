#include "deploy/unit_source.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "run/parameters.h"
#include "run/tensor_file.h"

namespace blockptq {

UnitSource::UnitSource(const Checkpoint& checkpoint,
                       const std::vector<std::filesystem::path>& files,
                       const StreamRotation* rotation)
    : WeightSource(checkpoint, rotation) {
  for (const auto& file : files) {
    files_.push_back(std::make_unique<SafetensorsFile>(file));
  }
}

void UnitSource::codes(const PlannedTensor& tensor, const TakeRows& take) {
  const std::string codes = parameter_name(tensor.tensor.name, ".weight_codes");
  const std::string scales = parameter_name(tensor.tensor.name, ".weight_scale");
  const SafetensorsFile* file = file_with(codes);
  check(file != nullptr, "{}: no unit of the run chose its codes", tensor.tensor.name);
  const at::Tensor codes_OI = read_tensor(*file, file->at(codes));
  const at::Tensor scales_O = read_tensor(*file, file->at(scales));
  take({codes_OI.const_data_ptr<int8_t>(), scales_O.const_data_ptr<float>(), codes_OI.size(0),
        codes_OI.size(1)});
}

const SafetensorsFile* UnitSource::file_with(const std::string& name) const {
  const auto found =
      std::ranges::find_if(files_, [&](const auto& file) { return file->find(name) != nullptr; });
  return found == files_.end() ? nullptr : found->get();
}

bool UnitSource::reads(const PlannedTensor& tensor) const {
  return WeightSource::reads(tensor) && !tensor.tensor.quantized() &&
         file_with(tensor.tensor.name) == nullptr;
}

bool UnitSource::transformed(const PlannedTensor& tensor) const {
  return file_with(tensor.tensor.name) != nullptr || WeightSource::transformed(tensor);
}

FoldedFactors UnitSource::folded(const PlannedTensor& tensor) const {
  return learned_factors(
      tensor.tensor.name, tensor.tensor.shape,
      [&](const std::string& name) -> std::optional<at::Tensor> {
        const SafetensorsFile* file = file_with(name);
        return file == nullptr ? std::nullopt : std::optional(read_tensor(*file, file->at(name)));
      });
}

void UnitSource::values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
                        float* out) const {
  const SafetensorsFile* file = file_with(tensor.tensor.name);
  if (file == nullptr) {
    WeightSource::values(tensor, row_begin, row_end, out);
    return;
  }
  const TensorInfo& info = file->at(tensor.tensor.name);
  const int64_t row_bytes = info.nbytes / tensor.source->rows();
  const TensorBytes bytes = file->read(info, row_begin * row_bytes, row_end * row_bytes);
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<uint8_t*>(out));
}

}  // namespace blockptq
