#include "checkpoint/formats/output_format.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace blockptq {

const OutputFormat& compressed_tensors_output();
const OutputFormat& ascend_output();

namespace {

/// The table of output formats, the default first: a new format is one file and one row here.
std::span<const OutputFormat* const> all_output_formats() {
  static const std::array<const OutputFormat*, 2> kFormats{&compressed_tensors_output(),
                                                           &ascend_output()};
  return kFormats;
}

class Int8Encoder final : public WeightEncoder {
 public:
  void add(const CodeRows& rows, const Append& append) override {
    append(rows.codes, static_cast<size_t>(rows.rows * rows.cols));
    scales_.insert(scales_.end(), rows.scales, rows.scales + rows.rows);
  }
  void finish(const Append& append) override {
    append(scales_.data(), scales_.size() * sizeof(float));
  }

 private:
  std::vector<float> scales_;
};

}  // namespace

std::vector<std::string> output_format_names() {
  std::vector<std::string> names;
  for (const OutputFormat* format : all_output_formats()) {
    names.emplace_back(format->name());
  }
  return names;
}

const OutputFormat& output_format(std::string_view name) {
  const auto formats = all_output_formats();
  const auto found = std::find_if(formats.begin(), formats.end(), [&](const OutputFormat* format) {
    return format->name() == name;
  });
  check(found != formats.end(), "format '{}': expected one of {}", name,
        fmt::join(output_format_names(), ", "));
  return **found;
}

std::string module_name(const OutputTensor& tensor) {
  constexpr std::string_view kSuffix = ".weight";
  BPTQ_ASSERT(tensor.name.ends_with(kSuffix));
  return tensor.name.substr(0, tensor.name.size() - kSuffix.size());
}

bool is_float_linear(const OutputTensor& tensor) {
  return !tensor.quantized() && tensor.shape.size() == 2 && tensor.role != "embedding";
}

std::vector<TensorSpec> int8_specs(const OutputTensor& tensor) {
  return {{tensor.name, Dtype::i8, tensor.shape},
          {module_name(tensor) + ".weight_scale", Dtype::f32, {tensor.shape[0], 1}}};
}

std::unique_ptr<WeightEncoder> int8_encoder() {
  return std::make_unique<Int8Encoder>();
}

}  // namespace blockptq
