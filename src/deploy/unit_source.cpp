#include "deploy/unit_source.h"

#include "base/error.h"
#include "run/parameters.h"
#include "run/tensor_file.h"

namespace blockptq {

UnitSource::UnitSource(const Checkpoint& checkpoint,
                       const std::vector<std::filesystem::path>& files)
    : WeightSource(checkpoint) {
  for (const auto& file : files) {
    files_.push_back(std::make_unique<SafetensorsFile>(file));
  }
}

void UnitSource::codes(const PlannedTensor& tensor, const TakeRows& take) {
  const std::string codes = parameter_name(tensor.tensor.name, ".weight_codes");
  const std::string scales = parameter_name(tensor.tensor.name, ".weight_scale");
  for (const auto& file : files_) {
    if (const TensorInfo* info = file->find(codes)) {
      const at::Tensor codes_OI = read_tensor(*file, *info);
      const at::Tensor scales_O = read_tensor(*file, file->at(scales));
      take({codes_OI.const_data_ptr<int8_t>(), scales_O.const_data_ptr<float>(), codes_OI.size(0),
            codes_OI.size(1)});
      return;
    }
  }
  fail("{}: no unit of the run chose its codes", tensor.tensor.name);
}

}  // namespace blockptq
